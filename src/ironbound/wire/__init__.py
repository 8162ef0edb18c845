"""The small protocols between the processes: frames, the deployment directory, the log's client and follower."""
