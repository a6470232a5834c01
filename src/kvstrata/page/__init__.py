"""Reports as one HTML file each: what they have in common."""
