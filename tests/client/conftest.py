from tests.system.conftest import builder_key, idle, instance, keys

__all__ = ["builder_key", "idle", "instance", "keys"]
