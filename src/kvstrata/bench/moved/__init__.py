"""What a conversation pays when its next turn comes to another node than its last one."""
