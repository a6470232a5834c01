"""What a deployment downloads: pinned in artifacts.lock.yml, kept in the controller's cache."""
