"""Ray Serve in front of servers: an application whose replicas each run a whole one."""
