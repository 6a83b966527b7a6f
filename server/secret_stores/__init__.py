"""Where secrets are kept: one module per store, all behind `tools.secrets.SecretStore`."""
