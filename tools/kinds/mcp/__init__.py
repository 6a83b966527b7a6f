"""`mcp`: calls that another MCP server answers, over stdio, the old HTTP+SSE and streamable HTTP, every protocol era."""
