"""Run systemd's services on a host that has no systemd, as systemd would: the directives that kvstrata's units use."""
