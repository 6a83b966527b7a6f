"""The management operations as MCP tools (agents.md, "Management tools"): one function of `Admin` each, by noun."""
