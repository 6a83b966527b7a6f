"""The secret store that the settings choose, and the key of what is kept at rest."""

from collections.abc import Awaitable, Callable

from server import keyring
from server.secret_stores.local import LocalSecretStore
from server.settings import Settings
from server.store.database import Database
from tools.secrets import SecretStore

Close = Callable[[], Awaitable[None]]


def open_keyring(settings: Settings) -> keyring.Keyring:
    """Raises SecretStoreUnavailable."""
    if settings.secret_key:
        return keyring.given(settings.secret_key.get_secret_value())
    return keyring.kept_in(settings.home)


def open_secret_store(settings: Settings, database: Database, ring: keyring.Keyring) -> tuple[SecretStore, list[Close]]:
    """The store and what closes it. Raises SecretStoreUnavailable."""
    match settings.secret_store:
        case "environment":
            import os

            from server.secret_stores.environment import EnvironmentSecretStore

            return EnvironmentSecretStore(os.environ), []
        case "ssm":
            from server.secret_stores.ssm import SsmSettings, open_ssm

            ssm = open_ssm(SsmSettings(settings.ssm_region, settings.ssm_endpoint_url, settings.ssm_kms_key))
            return ssm, [ssm.aclose]
        case "local":
            old = None if settings.secret_key else keyring.old_kept_in(settings.home)
            return LocalSecretStore(database, ring, old), []
