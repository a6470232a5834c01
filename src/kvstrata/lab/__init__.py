"""Real systemd nodes in podman on one machine: the lab that proves kvstrata without GPU machines.

`spec` says what a lab is, `lab` brings it up and down; every other module owns one thing of the host
(packages, image, drives, network, host firewall, nodes, SSH) and nothing else.
"""
