import pytest

from services.database.engine import Database
from services.errors import Conflict, Invalid, NotFound
from services.keys import CACHED_KEYS, SCOPES, Keys


@pytest.fixture
def keys(any_database: Database, clock) -> Keys:
    return Keys(any_database, cache_seconds=10, clock=clock, monotonic=clock)


def test_a_secret_is_verified_and_never_stored(keys: Keys) -> None:
    secret, key = keys.create("laptop", ["read", "rollout"])
    found = keys.verify(secret)
    assert found is not None
    assert (found.id, found.scopes) == (key.id, ("read", "rollout"))
    with keys.database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM keys").all()
    assert secret.rsplit("_", 1)[-1] not in repr(rows)


def test_what_is_no_key_is_refused(keys: Keys) -> None:
    secret, _ = keys.create("laptop", ["read"])
    other, _ = keys.create("desktop", ["read"])
    mixed = other[: len("spn_") + 13] + secret.split("_", 2)[2]
    for wrong in ("", "x", "spn__", secret[:-1], secret + "x", secret.upper(), mixed):
        assert keys.verify(wrong) is None
    # What PostgreSQL does not take in a text, nor JSON in UTF-8.
    for letter in ("\0", "\N{DIGIT ONE}\N{COMBINING DIAERESIS}", "\ud800", "\n"):
        assert keys.verify(f"spn_{letter}_y") is None
        assert keys.verify(secret.replace("_", f"_{letter}", 1)) is None
        assert keys.verify(secret + letter) is None


def test_admin_has_every_scope(keys: Keys) -> None:
    _, admin = keys.create("admin", ["admin"])
    _, reader = keys.create("reader", ["read"])
    assert all(admin.allows(scope) for scope in SCOPES)
    assert [scope for scope in SCOPES if reader.allows(scope)] == ["read"]


def test_a_revoked_key_is_refused_at_once_here_and_soon_elsewhere(
    keys: Keys, clock
) -> None:
    elsewhere = Keys(keys.database, cache_seconds=10, clock=clock, monotonic=clock)
    secret, key = keys.create("laptop", ["read"])
    assert keys.verify(secret)
    assert elsewhere.verify(secret)
    assert keys.revoke(key.id).revoked_at is not None
    assert keys.verify(secret) is None
    assert elsewhere.verify(secret), "it is believed for ten seconds"
    clock.advance(11)
    assert elsewhere.verify(secret) is None
    first = keys.revoke(key.id).revoked_at
    clock.advance(5)
    assert keys.revoke(key.id).revoked_at == first


def test_a_key_ends_by_itself_in_caches_too(keys: Keys, clock) -> None:
    secret, key = keys.create("visitor", ["read"], seconds=25)
    assert key.expires_at is not None
    assert (key.expires_at - key.created_at).total_seconds() == 25
    clock.advance(19)
    assert keys.verify(secret)
    assert keys.cached(secret)
    clock.advance(6)
    assert keys.cached(secret) is None, "it would be believed for four seconds more"
    assert keys.verify(secret) is None
    assert [each.expires_at for each in keys.list()] == [key.expires_at]
    for wrong in (0.5, 1e12, float("nan")):
        with pytest.raises(Invalid, match="/expires_in_seconds"):
            keys.create("visitor", ["read"], seconds=wrong)


def test_a_rotated_key_and_its_heir_are_both_valid_for_a_while(
    keys: Keys, clock
) -> None:
    secret, old = keys.create("sampler", ["read", "rollout"], seconds=1000)
    clock.advance(100)
    heir_secret, heir = keys.rotate(old.id, keep_seconds=60)
    assert heir.id != old.id
    assert (heir.name, heir.scopes) == (old.name, old.scopes)
    assert heir.expires_at is not None
    assert (heir.expires_at - heir.created_at).total_seconds() == 1000
    assert keys.verify(secret)
    assert keys.verify(heir_secret)
    clock.advance(60)
    assert keys.verify(secret) is None
    assert keys.verify(heir_secret)
    with pytest.raises(Conflict, match="revoked or has expired"):
        keys.rotate(old.id, keep_seconds=60)
    assert [each.replaced_by for each in keys.list()] == [heir.id, None]
    with pytest.raises(NotFound):
        keys.rotate("none", keep_seconds=60)
    with pytest.raises(Invalid, match="/keep_seconds"):
        keys.rotate(heir.id, keep_seconds=-1)


def test_a_rotation_lengthens_no_life_and_can_end_one_at_once(
    keys: Keys, clock
) -> None:
    secret, old = keys.create("sampler", ["read"], seconds=30)
    keys.rotate(old.id, keep_seconds=3600)
    assert keys.list()[0].expires_at == old.expires_at
    forever_secret, forever = keys.create("gateway", ["read"])
    assert keys.verify(forever_secret)
    _, heir = keys.rotate(forever.id, keep_seconds=0)
    assert heir.expires_at is None
    assert keys.verify(forever_secret) is None, "its use is forgotten here too"
    _, second = keys.rotate(heir.id, keep_seconds=3600)
    # What is left of its life would be that of another heir.
    with pytest.raises(Conflict, match=f"key {second.id} has taken the place") as again:
        keys.rotate(heir.id, keep_seconds=3600)
    assert again.value.code == "key_replaced"
    assert len(keys.list()) == 5
    assert keys.verify(secret)


def test_use_is_noted_about_once_a_minute(keys: Keys, clock) -> None:
    secret, key = keys.create("laptop", ["read"])
    for _ in range(12):
        keys.verify(secret)
        clock.advance(11)
    (listed,) = keys.list()
    assert listed.last_used_at is not None
    assert 60 < (listed.last_used_at - key.created_at).total_seconds() < 132


def test_the_cache_is_bounded(keys: Keys) -> None:
    for number in range(5):
        keys.verify(f"spn_{number:012}_{'x' * 43}")
    assert len(keys._cache) == 0, "unknown keys take no place"
    assert CACHED_KEYS == 1024


def test_unknown_scopes_and_keys_are_refused(keys: Keys) -> None:
    with pytest.raises(Invalid, match=r"/scopes: found \['root'\]"):
        keys.create("laptop", ["read", "root"])
    with pytest.raises(Invalid, match="/scopes"):
        keys.create("laptop", [])
    with pytest.raises(Invalid, match="/name"):
        keys.create("", ["read"])
    with pytest.raises(NotFound, match="no key 'none'"):
        keys.revoke("none")
