"""Every problem that an upload can have: a stable code, what is expected, and what to do.

A message is what was found, then this table's advice. ``python -m incomingd.rules`` prints the reference page
docs/problems.md, so that it cannot drift. A code is never given another meaning, and never reused.
"""

from dataclasses import dataclass

from incomingd.model import Problem

_ALL: dict[str, "Rule"] = {}
_group = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: its ``code``, what it demands, the advice for who broke it, and where the rule comes from."""

    code: str
    group: str
    demand: str
    advice: str
    source: str

    def problem(self, found: str, *, file: str | None = None) -> Problem:
        """The problem that ``found`` breaks this rule. ``found`` has been made printable."""
        return Problem(code=self.code, message=f"{found}; {self.advice}", file=file)


def _section(title: str) -> None:
    global _group  # noqa: PLW0603  # read while this module is built, never afterwards
    _group = title


def _rule(code: str, demand: str, advice: str, source: str = "") -> Rule:
    if code in _ALL:
        raise ValueError(f"two rules have the code {code}")
    _ALL[code] = rule = Rule(code=code, group=_group, demand=demand, advice=advice, source=source)
    return rule


def every() -> tuple[Rule, ...]:
    """All rules, in the order of this table."""
    return tuple(_ALL.values())


def of_group(group: str) -> tuple[Rule, ...]:
    """The rules of one part of this table, by its title."""
    return tuple(rule for rule in every() if rule.group == group)


_section("The upload")
BAD_UPLOAD_NAME = _rule(
    "bad-upload-name",
    "An upload's name is a letter or digit, then at most 199 letters, digits and . _ + ~ -.",
    "rename the directory and send it again",
)
NAME_TAKEN = _rule(
    "name-taken",
    "An upload's name is not that of another account's upload that is on its way or ended less than a day ago.",
    "send it again under another name, one that no other account uses",
)
BAD_FILE_NAME = _rule(
    "bad-file-name",
    "A file's name is a letter or digit, then letters, digits and . + ~ _ -, at most 255 bytes, ASCII.",
    "name it with letters, digits and . + ~ _ - only, the first a letter or digit, as dpkg does",
)
NOT_REGULAR_FILE = _rule(
    "not-regular-file",
    "An upload holds regular files only: no links, directories, FIFOs or devices.",
    "send plain files, side by side in one directory",
)
FOREIGN_FILE = _rule(
    "foreign-file",
    "Each file of an upload belongs to the owner of its directory, in a flat upload to the owner of its .changes.",
    "have one account write the whole upload; files of several accounts are taken from a directory that only root or "
    "the daemon can write in",
)
UNREADABLE_FILE = _rule(
    "unreadable-file",
    "The daemon can read every file of an upload.",
    "let the daemon read it (umask 022, or the default ACLs of the operator's guide) and send it again",
)
NO_CHANGES = _rule(
    "no-changes", "An upload has at least one .changes.", "send the .changes that dpkg-buildpackage wrote, too"
)
TOO_MANY_FILES = _rule(
    "too-many-files",
    "An upload has at most max_files files.",
    "split the upload, or ask the operator for a higher limit",
)
TOO_MANY_CHANGES = _rule(
    "too-many-changes",
    "An upload has at most max_changes .changes files.",
    "split the upload, or ask the operator for a higher limit",
)
UPLOAD_TOO_LARGE = _rule(
    "upload-too-large",
    "An upload has at most max_upload bytes.",
    "split the upload, or ask the operator for a higher limit",
)
TEXT_TOO_LARGE = _rule(
    "text-too-large",
    "A .changes, .dsc or .buildinfo has at most max_text_file bytes.",
    "shorten it, or ask the operator for a higher limit",
)
FILE_BUSY = _rule(
    "file-busy",
    "Nothing keeps the daemon from reading the files of an upload.",
    "end the program that holds it (a lease, a lock of a network file system), and send the upload again",
)
CHANGED_WHILE_READ = _rule(
    "changed-while-read",
    "Nothing changes in an upload once it was taken.",
    "wait until everything is written before the directory is renamed into place",
)
UPLOAD_INCOMPLETE = _rule(
    "upload-incomplete",
    "An upload that is written in place becomes complete within abandon_after.",
    "send the whole upload again under a new name",
)
UPLOAD_WITHDRAWN = _rule(
    "upload-withdrawn",
    "An upload stays where it was dropped until it is taken.",
    "if that was not meant, send it again",
)
UPLOAD_CANCELLED = _rule(
    "upload-cancelled",
    "An upload that waits is published unless an operator, or a .commands file of its sender, cancels it.",
    "if that was a mistake: incomingctl retry",
)
JOURNAL_RESTORED = _rule(
    "journal-restored",
    "An upload is known to the journal. This one came after the backup from which the operator restored it.",
    "send it again",
)
COMMANDS_REFUSED = _rule(
    "commands-refused",
    "A .commands file has rm, cancel and reschedule, each with the .changes or the name of an upload of its sender "
    "that waits.",
    "see docs/clients.md for what can be asked",
)
COMMANDS_REPEATED = _rule(
    "commands-repeated",
    "A .commands file counts once.",
    "sign and send new ones",
)
UPLOAD_LOST = _rule(
    "upload-lost",
    "A claimed upload's files stay in the claims folder.",
    "send it again, and tell the operator that something removed files from state/",
)

_section("Signature")
UNSIGNED = _rule(
    "unsigned",
    "A .changes is signed.",
    "sign it with debsign, dpkg-buildpackage --sign-key or incomingctl submit --key",
    "dak",
)
BAD_SIGNATURE = _rule(
    "bad-signature", "gpg calls the signature good.", "sign the file again after its last change", "gpg DETAILS"
)
NOT_ONE_SIGNATURE = _rule(
    "not-one-signature",
    "There is exactly one clear-signed block, whole to its END line, with exactly one signature.",
    "sign the bare file again, once",
    "RFC 4880 §7",
)
TEXT_OUTSIDE_SIGNATURE = _rule(
    "text-outside-signature",
    "Nothing but white space stands before or after the signed block.",
    "remove it, or sign the bare file again",
    "RFC 4880 §7",
)
UNKNOWN_KEY = _rule(
    "unknown-key", "The signing key is trusted for uploads.", "have the operator run: incomingctl trust KEYFILE"
)
EXPIRED_KEY = _rule(
    "expired-key", "Neither the key nor its signing subkey has expired.", "extend the key and have it trusted again"
)
REVOKED_KEY = _rule(
    "revoked-key", "Neither the key nor its signing subkey is revoked or disabled.", "sign with a key that is in force"
)
KEY_OF_TWO_OWNERS = _rule(
    "key-of-two-owners",
    "The signing key belongs to one trusted key only, as primary key or as subkey.",
    "have the operator run incomingctl untrust for the one that it does not belong to",
)
WEAK_DIGEST = _rule(
    "weak-digest",
    "The signature's digest is not MD5, SHA-1 or RIPEMD-160.",
    "sign with digest-algo SHA256 or SHA512 in gpg.conf",
)
FUTURE_SIGNATURE = _rule(
    "future-signature",
    "A signature is not made more than 24 h in the future.",
    "set the clock of the machine that signs, and sign again: at most 24 h ahead are allowed",
)
EXPIRED_SIGNATURE = _rule(
    "expired-signature", "A signature with an end of its own is used before that.", "sign the file again"
)
OLD_SIGNATURE = _rule(
    "old-signature", "A signature is not older than max_signature_age.", "sign the file again", "dak: 365 days"
)

_section("Text files: .changes, .dsc, control")
NOT_UTF8 = _rule("not-utf8", "The text is UTF-8.", "save it as UTF-8", "Debian Policy 5.1")
CRLF = _rule("crlf", "Lines end with a newline alone.", "convert the line ends with dos2unix and sign again")
CONTROL_CHARACTER = _rule(
    "control-character", "There is no control character but newline and tab.", "remove it and sign again"
)
BAD_SYNTAX = _rule(
    "bad-syntax",
    "Each line is a field, or continues one with a leading blank.",
    "write the file with dpkg's own tools",
    "Debian Policy 5.1",
)
NOT_ONE_STANZA = _rule(
    "not-one-stanza", "There is exactly one stanza.", "write the file with dpkg's own tools", "Debian Policy 5.1"
)
REPEATED_FIELD = _rule(
    "repeated-field", "No field stands twice, whatever its case.", "remove one of the two", "Debian Policy 5.1"
)
TEXT_LIMIT = _rule(
    "text-limit",
    "A stanza has at most 1,000 fields, and a line at most 64 KiB. A line of a package's control file may have as much "
    "as its stanza.",
    "shorten it: a stanza has at most 1,000 fields, a line 64 KiB",
)
MISSING_FIELD = _rule("missing-field", "The fields that the format requires are there.", "add the field")

_section(".changes")
BAD_FORMAT = _rule(
    "bad-format", "Format is 1.8 (1.7 is read).", "write it with dpkg-genchanges, as Format 1.8", "deb-changes(5)"
)
BAD_PACKAGE_NAME = _rule(
    "bad-package-name",
    "A package's name is lower-case letters, digits and + - . _ , the first a letter or digit. With strict it has at "
    "least two, and no _ ; without, such a name is a warning.",
    "rename the package: two or more lower-case letters, digits and + - . are a name",
    "Debian Policy 5.6.1, 5.6.7",
)
BAD_VERSION = _rule(
    "bad-version",
    "A version is [epoch:]upstream[-revision].",
    "write it as [epoch:]upstream[-revision], the upstream version beginning with a digit",
    "Debian Policy 5.6.12",
)
BAD_ADDRESS = _rule(
    "bad-address",
    "Maintainer and Changed-By are a name and an address: Name <user@host>.",
    "write it as Name <user@host>",
    "Debian Policy 5.6.2",
)
BAD_DATE = _rule(
    "bad-date",
    "Date is an RFC 5322 date.",
    "write it as dpkg-genchanges does: Sun, 01 Mar 2026 11:00:00 +0000",
    "deb-changes(5)",
)
BAD_CLOSES = _rule(
    "bad-closes", "Closes lists bug numbers.", "list bug numbers in the changelog, and nothing else", "deb-changes(5)"
)
CHANGES_FILE_NAME = _rule(
    "changes-file-name",
    "A .changes is named SOURCE_VERSION_SUFFIX.changes, without the epoch.",
    "name it as dpkg-genchanges does",
    "dpkg-genchanges(1)",
)
BAD_FILE_LIST = _rule(
    "bad-file-list",
    "Each row of Files and Checksums-* has its columns: a digest in hex, a size, and a name.",
    "write it with dpkg-genchanges: digest, size and name in each row, in Files section and priority, too",
    "deb-changes(5)",
)
FILE_LISTS_DIFFER = _rule(
    "file-lists-differ",
    "Files and Checksums-* list the same names and sizes, none twice.",
    "write it with dpkg-genchanges",
    "deb-changes(5)",
)
LISTS_ITSELF = _rule("lists-itself", "A .changes does not list itself.", "write it with dpkg-genchanges")

_section("Files")
MISSING_FILE = _rule("missing-file", "Each listed file is in the upload.", "send the whole upload again")
SIZE_MISMATCH = _rule(
    "size-mismatch",
    "Each file has its listed size.",
    "if it was cut off on its way, send the upload again; if it was built anew, write and sign the .changes again",
)
CHECKSUM_MISMATCH = _rule(
    "checksum-mismatch",
    "Each file has every digest that is listed.",
    "if it was damaged on its way, send the upload again; if it was built anew, write and sign the .changes again",
)
BYHAND = _rule(
    "byhand",
    "Each file is of a kind that the archive can hold.",
    "leave it out of the .changes: packages, .dsc, tarballs with their .asc, .diff.gz and .buildinfo are taken",
    "dak",
)
UNKNOWN_SECTION = _rule(
    "unknown-section",
    "A file's section is one that is known; otherwise a warning, and the index says misc. With strict it is refused.",
    "use a section of Debian Policy 2.4, or have the operator add it to extra_sections",
    "Debian Policy 2.4",
)
UNKNOWN_PRIORITY = _rule(
    "unknown-priority",
    "A file's priority is required, important, standard, optional or extra; otherwise a warning, and the index says "
    "optional. With strict it is refused.",
    "have Priority in debian/control be required, important, standard, optional or extra",
    "Debian Policy 2.5",
)
ARCHITECTURE_MISMATCH = _rule(
    "architecture-mismatch",
    "The Architecture field names just what the files are: source with one .dsc, and each binary's architecture.",
    "write it with dpkg-genchanges",
    "deb-changes(5)",
)
UNLISTED_FILE = _rule(
    "unlisted-file", "Each file of the upload is listed by a .changes.", "it was left out (a warning)"
)

_section("Distribution and rights")
UNKNOWN_DISTRIBUTION = _rule(
    "unknown-distribution",
    "Each word of Distribution maps to a suite.",
    "name one of these in the changelog, or in incomingctl submit --suite; or have the operator add the word to the "
    "suite's accepts",
)
SUITE_RETIRED = _rule(
    "suite-retired",
    "The suite still changes: one that is retired is served on as it is.",
    "send it to the suite that follows, or have the operator take retired out of the suite's table",
)
SUITE_NOT_HERE = _rule(
    "suite-not-here",
    "A queue takes uploads for its own suites only.",
    "send it to the incoming directory for that suite",
)
UNKNOWN_COMPONENT = _rule(
    "unknown-component", "The suite has the component.", "correct Section, or have the operator add the component"
)
UNKNOWN_ARCHITECTURE = _rule(
    "unknown-architecture", "The suite has the architecture.", "build for another, or have the operator add it"
)
KEY_NOT_ALLOWED = _rule(
    "key-not-allowed",
    "The uploaders table lets the key upload this source, to this suite, in this form.",
    "have the operator change [[uploaders]]",
)

_section("Source packages")
DSC_FIELD_MISMATCH = _rule(
    "dsc-field-mismatch",
    "Source and Version of the .dsc are those of the .changes.",
    "write the .changes of this very .dsc with dpkg-genchanges: they come from two builds",
    "dak",
)
DSC_FILE_NAME = _rule(
    "dsc-file-name",
    "A .dsc is named SOURCE_VERSION.dsc, without the epoch.",
    "leave the name that dpkg-source gives it, and write the .changes with dpkg-genchanges",
)
SOURCE_FORMAT = _rule(
    "source-format", "The source format is one of source_formats.", "change debian/source/format", "dpkg-source(1)"
)
SOURCE_FILE_SET = _rule(
    "source-file-set",
    "The .dsc's files fit its format and carry the source's name and version.",
    "build with dpkg-source",
    "dpkg-source(1)",
)
SOURCE_FILE_MISMATCH = _rule(
    "source-file-mismatch", "The .dsc's files have the sizes and digests that it lists.", "build again"
)
BAD_RELATION = _rule(
    "bad-relation",
    "Dependency fields parse, are not empty, and Provides is versioned with = only.",
    "write each as package, or package (operator version) with << <= = >= >>, in Provides only =",
    "Debian Policy 7.1",
)
BAD_TAR = _rule(
    "bad-tar",
    "Each tar archive can be read whole, within limits.",
    "build again with dpkg-source or dpkg-deb",
)
TAR_OUTSIDE = _rule(
    "tar-outside",
    "Nothing in a tarball lies outside of it; in a source's, nothing leads out of it, or is a device or a FIFO.",
    "make the tarball anew without absolute names, '..' and links that lead out",
)
BAD_UPSTREAM_SIGNATURE = _rule(
    "bad-upstream-signature",
    "An .asc beside a tarball is an OpenPGP signature, armored or binary, and nothing else.",
    "leave it out, or take the detached signature that upstream has published",
    "dpkg-source(1)",
)
UNSIGNED_DSC = _rule(
    "unsigned-dsc",
    "The .dsc is signed by a trusted key (require_dsc_signature).",
    "sign the .dsc too, with debsign",
)

_section("Binary packages")
BAD_DEB = _rule(
    "bad-deb",
    "A .deb is an ar archive of debian-binary 2.x, control.tar and data.tar, whole, and of tar headers that dpkg reads "
    "(no PAX headers). Before data.tar stand only members whose names begin with _ ; behind it, such as signatures, "
    "none twice and none that dpkg or apt could read instead.",
    "build again with dpkg-deb: debian-binary 2.x, control.tar and data.tar, whole",
    "deb(5)",
)
BAD_COMPRESSION = _rule(
    "bad-compression",
    "A compressed stream is whole and within limits: decompressed, all of an upload is at most [checks] max_unpacked (1"
    " GiB) and 200 times its size.",
    "build again with dpkg-deb or dpkg-source",
    "deb(5)",
)
BAD_CONTROL_ARCHIVE = _rule(
    "bad-control-archive",
    "control.tar holds exactly one control file, and opens within limits.",
    "build again with dpkg-deb, which puts one control file of at most 1 MiB there",
    "deb(5)",
)
STANZA_TOO_LARGE = _rule(
    "stanza-too-large",
    "A package has at most max_stanza bytes in an index, and in its control file or .dsc: apt reads no larger stanza.",
    "shorten its fields, or ask the operator for a higher limit",
)
INDEX_FIELD = _rule(
    "index-field",
    "Only the archive says Filename, Size, MD5sum, SHA1, SHA256, SHA512, Checksum-FileSize and Description-md5.",
    "they were left out of the index; remove them from debian/control (a warning)",
)
BAD_CONTROL_FILE = _rule(
    "bad-control-file",
    "dpkg reads the control file: a newline at its end, names of two letters and more, yes or no in Essential and "
    "Protected, same, foreign, allowed or no in Multi-Arch, no field of its status file.",
    "correct debian/control and build again with dpkg-deb",
    "dpkg's parser",
)
DEB_FILE_NAME = _rule(
    "deb-file-name",
    "A binary is named PACKAGE_VERSION_ARCHITECTURE.ENDING, without the epoch, the ending that of its Package-Type. "
    "Another name is a warning, and in the pool it has this one. With strict it is refused.",
    "build again with dpkg-deb",
    "deb(5)",
)
DEB_VERSION_MISMATCH = _rule(
    "deb-version-mismatch",
    "A binary's version, or its source's, is that of the .changes.",
    "build all packages of the .changes together",
    "Debian Policy 5.6.1",
)
DEB_SOURCE_MISMATCH = _rule(
    "deb-source-mismatch", "A binary comes from the .changes' source.", "build all packages of the .changes together"
)
BINARY_NOT_LISTED = _rule(
    "binary-not-listed", "Each binary stands in the .changes' Binary field.", "write it with dpkg-genchanges"
)
BAD_BINARY_ARCHITECTURE = _rule(
    "bad-binary-architecture",
    "A binary's Architecture is one word, all or a real one.",
    "build it for one architecture, or for all",
)
SECTION_MISMATCH = _rule(
    "section-mismatch", "A binary's Section is that of the .changes.", "write it with dpkg-genchanges"
)
FUTURE_TIMESTAMP = _rule(
    "future-timestamp",
    "Nothing in a .deb is dated more than 24 h ahead.",
    "set the clock, and build again: at most 24 h ahead are allowed",
    "dak",
)

_section("The archive, in order")
BINARY_NOT_ALLOWED = _rule(
    "binary-not-allowed",
    "A key brings, and a .dsc claims, only binary packages that the key's [[uploaders]] rules name: by binaries, else "
    "by sources, and what the suite lists already from a source that the key may upload.",
    "have the operator do so, or rename the binary package",
)
BINARY_OF_OTHER_SOURCE = _rule(
    "binary-of-other-source",
    "A binary package that a suite lists belongs to the source that it came from; it moves to another one only if the "
    "key may upload both.",
    "rename the binary package, or have the operator allow the key both sources in [[uploaders]], or copy it with "
    "incomingctl copy --take-over",
)
ESSENTIAL_NOT_ALLOWED = _rule(
    "essential-not-allowed",
    "Essential, Protected, Important, and Priority required or important are for keys whose [[uploaders]] rule has "
    "essential = true.",
    "build it without, or have the operator set essential = true in the rule, or copy it with incomingctl copy "
    "--take-over",
)
BINARY_TAKEN_OVER = _rule(
    "binary-taken-over",
    "A binary package moves to another source on purpose only (told as a warning).",
    "if that was not meant: incomingctl rollback",
)
ESSENTIAL_PACKAGE = _rule(
    "essential-package",
    "A package that apt installs or keeps unasked is brought on purpose only (told as a warning).",
    "if that was not meant, build it without; [[uploaders]] rules say who may",
)
POOL_CONFLICT = _rule(
    "pool-conflict",
    "A pool file's name is not given to other bytes until the file has left the pool: grace after the last index that "
    "lists it.",
    "raise the version and build again; what was removed frees its name when it leaves the pool (see: incomingctl "
    "remove --forget)",
)
SAME_VERSION_OTHER_CONTENT = _rule(
    "same-version-other-content",
    "A package, version and architecture have one content only, until its files have left the pool.",
    "raise the version and build again; what was removed frees its name when it leaves the pool (see: incomingctl "
    "remove --forget)",
)
VERSION_NOT_NEWER = _rule("version-not-newer", "A version is newer than the suite's.", "raise the version")
MISSING_SOURCE = _rule(
    "missing-source",
    "A binary's source is in the upload or in the archive (require_source).",
    "upload the source first, or with it",
)
MISSING_ORIG = _rule(
    "missing-orig",
    "Each file of a .dsc is in the upload or in the archive.",
    "send it, too; where the .changes does not list it, build with dpkg-buildpackage -sa",
)
REPLAYED = _rule(
    "replayed",
    "A .changes whose packages were superseded or removed is not published again, however its armor is written.",
    "build and sign a new version; to publish again what was removed, sign its .changes again",
)
NOT_IN_SUITE = _rule("not-in-suite", "What is to be copied or removed is there.", "see: incomingctl list")
UNKNOWN_GENERATION = _rule("unknown-generation", "A rollback names an earlier generation.", "see: incomingctl history")
POOL_FILE_GONE = _rule(
    "pool-file-gone",
    "A rollback finds its pool files, with the bytes that they had.",
    "raise [publish] grace for the future",
)

BAD_INDEX_ENTRY = _rule(
    "bad-index-entry",
    "An index entry must name a file inside of the repository, its size and SHA256, and the package and "
    "version that it holds.",
    "have its owner make the index again, or leave it out with import --keep-going",
    "https://wiki.debian.org/DebianRepository/Format",
)
IMPORT_GONE = _rule(
    "import-gone", "What an import has read is there until it is published.", "run the same import again"
)

_section("Checks that end")
CHECK_CRASHED = _rule(
    "check-crashed",
    "The process that reads an upload lives to the end.",
    "look at the file that is named; if it is sound, report this",
)
CHECK_TIMEOUT = _rule(
    "check-timeout", "An upload is read within worker_time and worker_cpu.", "make the upload smaller"
)
MORE_PROBLEMS = _rule(
    "more-problems", "All problems of an upload are reported, up to a number that can be read.", "mend these first"
)
CHECK_MEMORY = _rule("check-memory", "An upload is read within worker_memory.", "make the upload smaller")

_section("The operator's own checks")
LINTIAN = _rule(
    "lintian",
    "lintian finds no tag that rejects ([checks.lintian]).",
    "see: lintian-explain-tags",
    "lintian(1)",
)
EXTERNAL_CHECK = _rule(
    "external-check", "Each program of [checks.commands] accepts the upload.", "mend what it has found"
)
EXTERNAL_CHECK_LIMIT = _rule(
    "external-check-limit",
    "Such a check ends within its time, and says no more than 1 MiB.",
    "make the upload smaller, or ask the operator for a higher limit",
)
EXTERNAL_CHECK_FAILED = _rule(
    "external-check-failed", "Such a check works (told as a warning).", "have the operator look at it"
)


def reference() -> str:
    """docs/problems.md."""
    lines = [
        "# Problem codes",
        "",
        "Made by `python -m incomingd.rules`; do not edit. Each problem in a status file has one of these codes. All",
        "problems of an upload are reported together.",
    ]
    group = ""
    for rule in every():
        if rule.group != group:
            group = rule.group
            lines += [
                "",
                f"## {group}",
                "",
                "| code | what is demanded | what to do | from |",
                "| --- | --- | --- | --- |",
            ]
        lines.append(f"| `{rule.code}` | {rule.demand} | {rule.advice} | {rule.source} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
