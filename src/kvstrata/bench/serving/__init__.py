"""`kvstrata bench serve`: configurations of the cache under real requests, compared in one run."""
