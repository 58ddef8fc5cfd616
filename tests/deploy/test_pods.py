"""What Kubernetes itself puts into a pod is no trouble to what runs there."""

import pytest

from services.settings import SettingsError, read_settings
from tests.deploy.test_manifests import OBJECTS, PODS


def test_no_service_puts_its_address_among_the_settings() -> None:
    services = [each for _, each in OBJECTS if each["kind"] == "Service"]
    names = [each["metadata"]["name"].upper().replace("-", "_") for each in services]
    (injected,) = (f"{name}_SERVICE_HOST" for name in names)
    with pytest.raises(SettingsError, match="SPNODE_SERVICE_HOST is not a setting"):
        read_settings({injected: "10.0.0.1"})
    assert len(PODS) == 4
    assert all(pod["enableServiceLinks"] is False for pod in PODS)
