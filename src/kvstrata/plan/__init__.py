"""`kvstrata plan`: which tiers pay for a model on given nodes, before anything is bought or deployed."""
