"""What the stores of a site hold, by namespace, and how to be rid of a namespace: `kvstrata cache ls|du|drop`.

Runs on the controller and reaches the stores as the verifier does, through the SSH connection of their node. The form
of what is on them is kvstrata.l2.names'.
"""
