"""What the playbooks render of drives: udev rules, and the block of an inventory that names them."""
