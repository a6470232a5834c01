"""Take replicas out of service and back, without a failed request.

With the profile `router`, every vllm-router of the site is told to choose the replica no more, and then its running
requests are awaited. With `dynamo`, the worker does both by itself when systemd stops it.
"""
