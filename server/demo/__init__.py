"""The demo: a small clinic on loopback, the integration that describes it, and the calls that show both."""
