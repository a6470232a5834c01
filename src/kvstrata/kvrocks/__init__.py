"""What Kvrocks can be told, and what this project tells it. Pure: no host and no server is asked."""
