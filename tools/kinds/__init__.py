"""One module per protocol: arguments -> request -> raw answer."""
