"""What a tool is and what happens when one is called. No web server, no database, no environment: read `gateway.py` first."""
