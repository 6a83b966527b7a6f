"""Who is calling, over which wire, and where things are kept. `app.py` puts the parts together."""
