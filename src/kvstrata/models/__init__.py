"""Models made on the controller, so that a lab needs no download."""
