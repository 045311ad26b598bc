"""What the archive holds, and since when a pool file is no longer wanted."""

from datetime import UTC, datetime, timedelta

from incomingd.journal.catalogue import Catalogue, Change, Package, PackageKey, PoolFile
from incomingd.model import Digests, FileEntry

T0 = datetime(2026, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)
NEVER = datetime(2000, 1, 1, tzinfo=UTC)


def package(name: str, version: str, arch: str = "amd64") -> tuple[Package, PoolFile]:
    path = f"pool/main/{name[0]}/{name}/{name}_{version}_{arch}.deb"
    key = PackageKey(kind="deb", name=name, version=version, architecture=arch)
    digests = Digests(md5="0" * 32, sha1="0" * 40, sha256=version.rjust(64, "0"))
    file = PoolFile(path=path, file=FileEntry(name=path.rpartition("/")[2], size=1, digests=digests))
    stanza = f"Package: {name}\nVersion: {version}\n\n".encode()
    return Package(key=key, source=name, source_version=version, component="main", stanza=stanza, paths=(path,)), file


def publish(catalogue: Catalogue, generation: int, at: datetime, *names: tuple[str, str, str]) -> None:
    for name, version, arch in names:
        one, file = package(name, version, arch)
        catalogue.add_pool_files([file], None, at)
        if catalogue.package(one.key) is None:
            catalogue.add_packages([one], None, at)
        arches = ["amd64", "arm64"] if arch == "all" else [arch]
        changes = [(Change(section=f"main/binary-{a}", name=name, package=one.key), None) for a in arches]
        catalogue.apply("stable", generation, changes, at)


def test_a_section_lists_names_in_the_bytes_order(catalogue: Catalogue) -> None:
    publish(catalogue, 1, T0, ("zz", "1", "amd64"), ("a+b", "1", "amd64"), ("a-b", "1", "amd64"), ("a", "1", "all"))
    names = [name for name, _ in catalogue.section_stanzas("stable", "main/binary-amd64")]
    assert names == ["a", "a+b", "a-b", "zz"]
    assert [n for n, _ in catalogue.section_stanzas("stable", "main/binary-amd64", "a+b")] == ["a+b", "a-b", "zz"]
    assert catalogue.sections("stable") == {"main/binary-amd64", "main/binary-arm64"}


def test_a_superseded_file_is_unused_from_then_on_and_never_forgotten(catalogue: Catalogue) -> None:
    publish(catalogue, 1, T0, ("hello", "1", "amd64"))
    publish(catalogue, 2, T0 + DAY, ("hello", "2", "amd64"))
    old = package("hello", "1")[1].path
    assert catalogue.unused_before(T0 + DAY, NEVER, 10) == [old]
    assert catalogue.unused_before(T0, NEVER, 10) == []
    catalogue.set_gone([old], T0 + 2 * DAY)
    assert catalogue.unused_before(T0 + 9 * DAY, NEVER, 10) == []
    kept = catalogue.pool_file(old)
    assert kept is not None
    assert kept.gone


def test_a_file_that_one_index_still_lists_is_in_use(catalogue: Catalogue) -> None:
    publish(catalogue, 1, T0, ("hello", "1", "all"))
    one, file = package("hello", "2")
    catalogue.add_pool_files([file], None, T0)
    catalogue.add_packages([one], None, T0)
    catalogue.apply("stable", 2, [(Change(section="main/binary-amd64", name="hello", package=one.key), None)], T0)
    assert catalogue.unused_before(T0 + DAY, NEVER, 10) == []


def test_what_a_crash_left_in_the_pool_is_known(catalogue: Catalogue) -> None:
    _, file = package("hello", "1")
    catalogue.intend([file.path, "pool/litter"])
    catalogue.add_pool_files([file], None, T0)
    assert catalogue.unfulfilled() == ["pool/litter"]
    catalogue.forget_fulfilled()  # another publish has succeeded meanwhile
    assert catalogue.unfulfilled() == ["pool/litter"]
    catalogue.forget_intents(["pool/litter"])
    assert catalogue.unfulfilled() == []


def test_an_architecture_that_came_later_lacks_the_all_packages(catalogue: Catalogue) -> None:
    publish(catalogue, 1, T0, ("docs", "1", "all"), ("tool", "1", "amd64"))
    sections = ["main/binary-amd64", "main/binary-arm64", "main/binary-riscv64"]
    assert [(s, k.name) for s, k in catalogue.missing_all("stable", sections)] == [("main/binary-riscv64", "docs")]
