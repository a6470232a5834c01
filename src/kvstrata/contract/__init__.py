"""The contract test of both serving profiles: docs/routing.md says what it asks and what came out."""
