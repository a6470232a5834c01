"""What is refused before anything on any host is changed: pure rules over an inventory and over what a probe saw."""
