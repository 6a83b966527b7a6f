"""One module per auth type, each with the same parts in the same order; tokens are minted late and cached."""
