//! What users are told: what failed, on which file and where, and what they can do about it.

use seawall_core::command::Operation;
use seawall_core::compress::DecompressError;
use seawall_core::config::Config;
use seawall_core::error::{AppendError, Failure, IoError, IoErrorKind, Poison, RequestError};
use seawall_core::id::{LogId, Lsn, Position, SegmentId};
use seawall_core::recover::{Proof, RangeKind, RecoveryError};
use seawall_core::wire::header::HeaderError;
use seawall_core::wire::name::FileId;

fn failure(operation: Operation, file: Option<FileId>, kind: IoErrorKind) -> Failure {
    let error = IoError { kind, os_code: (kind == IoErrorKind::NoSpace).then_some(28) };
    Failure { operation, file: file.map(FileId::name), error }
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "it is made for this")]
fn says(error: impl ToString, words: &str) {
    assert_eq!(error.to_string(), words);
}

#[test]
fn a_failed_operation_names_its_file_and_cause() {
    let first = Some(FileId::Segment(SegmentId::FIRST));
    let words = "write of 00000000000000000001.wal failed: no space left (os error 28)";
    says(failure(Operation::Write, first, IoErrorKind::NoSpace), words);
    let folder = failure(Operation::SyncDir, None, IoErrorKind::Other);
    says(folder, "directory sync failed: I/O error");
    let manifest = Some(FileId::Manifest);
    let words = "read of MANIFEST failed: no such file";
    says(failure(Operation::Read, manifest, IoErrorKind::NotFound), words);
    says(
        Poison(folder),
        "the log is poisoned: directory sync failed: I/O error; nothing appended since is certain: \
         open it again",
    );
    let operations = [
        (Operation::Create, "create"),
        (Operation::Allocate, "preallocate"),
        (Operation::Sync, "sync"),
        (Operation::Truncate, "truncate"),
        (Operation::Rename, "rename"),
        (Operation::Remove, "remove"),
        (Operation::List, "list"),
    ];
    for (operation, word) in operations {
        says(operation, word);
    }
}

#[test]
fn a_refused_append_says_what_to_do() {
    let full = failure(Operation::Write, None, IoErrorKind::NoSpace);
    let cause = "write failed: no space left (os error 28)";
    says(AppendError::Busy, "the log is busy: run its commands and try again");
    says(
        AppendError::DiskFull(full),
        &format!("disk full: {cause}; the append left nothing behind, make room and retry"),
    );
    says(
        AppendError::NoSegment(full),
        &format!("the next segment could not be made: {cause}; the append left nothing behind"),
    );
    says(
        AppendError::TooLarge { bytes: 70, limit_bytes: 64 },
        "70 bytes are over the limit of 64 for a record or a batch: split it, or raise the record \
         limit and the segment size",
    );
    says(AppendError::EmptyBatch, "a batch needs at least one record");
    says(AppendError::Poisoned(Poison(full)), &Poison(full).to_string());
    says(AppendError::Closed, "the log has been closed");
}

#[test]
fn a_refused_request_says_how_far_the_log_reaches() {
    let (lsn, other) = (Lsn::new(9), Lsn::new(5));
    let full = failure(Operation::Write, None, IoErrorKind::NoSpace);
    says(RequestError::Busy, "another request to delete, truncate or close is running");
    says(
        RequestError::BeyondEnd { lsn, last: other },
        "LSN 9 is past the end of the log, which is LSN 5",
    );
    says(
        RequestError::Deleted { lsn: other, first: lsn },
        "LSN 5 has been deleted: the first record of the log is LSN 9",
    );
    says(
        RequestError::Damaged { segment: SegmentId::FIRST, offset: 130 },
        "00000000000000000001.wal is damaged at offset 130; nothing was changed: verify the log",
    );
    says(
        RequestError::Failed(full),
        "write failed: no space left (os error 28); nothing was changed",
    );
    says(
        RequestError::DiskFull(full),
        "disk full: write failed: no space left (os error 28); what had not been written is \
         undone, make room and ask again",
    );
    says(RequestError::Poisoned(Poison(full)), &Poison(full).to_string());
    says(RequestError::Closed, "the log has been closed");
}

#[test]
fn a_log_that_does_not_open_says_why_and_what_helps() {
    let file = FileId::Segment(SegmentId::new(2)).name();
    let name = "00000000000000000002.wal";
    let log = |byte| LogId([byte; 16]);
    says(
        RecoveryError::NewerManifest(2),
        "MANIFEST is of format version 2, newer than this build reads: use a newer build",
    );
    says(
        RecoveryError::Unreadable(file, HeaderError::NewerFormat(2)),
        &format!(
            "{name} format version 2 is newer than 1, the newest that this build reads: use a \
             newer build"
        ),
    );
    says(RecoveryError::NotAFile(file), &format!("{name} is not a regular file: take it away"));
    says(
        RecoveryError::Foreign { file, found: log(1), expected: log(2) },
        &format!(
            "{name} is of log {}, not of this log, {}: move it back to where it belongs",
            log(1),
            log(2)
        ),
    );
    says(
        RecoveryError::Misnamed { file, found: SegmentId::new(7) },
        &format!(
            "the header of {name} names segment 7: it was copied or renamed; give it back its name \
             or take it away"
        ),
    );
    says(
        RecoveryError::Missing(file),
        &format!(
            "{name} is missing: put it back, or open with the salvage policy to go on without its \
             records"
        ),
    );
    says(RecoveryError::NoBuffers, "a log needs at least two buffers");
    let read = failure(Operation::Read, Some(FileId::Manifest), IoErrorKind::Other);
    says(RecoveryError::Io(read), "read of MANIFEST failed: I/O error");
}

#[test]
fn a_bad_header_setting_or_value_says_what_is_wrong_with_it() {
    says(HeaderError::TooShort, "shorter than the 72 bytes that name a segment");
    says(HeaderError::NotASegment, "does not begin as a segment does");
    says(
        HeaderError::Checksum { found: 1, computed: 0xff },
        "header checksum is 0x00000001, its bytes give 0x000000ff",
    );
    says(
        HeaderError::UnknownFeatures(4),
        "needs features that this build does not know (bits 0x00000004)",
    );
    says(HeaderError::UnknownChecksum(9), "names a checksum that this build does not know (9)");
    says(
        DecompressError::TooLong { raw_bytes: 10, limit_bytes: 5 },
        "the value unpacks to 10 bytes, over the limit of 5: raise the record limit to read it",
    );
    says(DecompressError::Malformed, "the packed value does not decode");
    let config = Config { segment_bytes_max: 10, ..Config::default() };
    says(
        config.checked().unwrap_err(),
        "segment_bytes_max is 10; it must be from 4096 to 1099511627776",
    );
}

#[test]
fn a_proof_and_a_range_say_what_they_are() {
    let at = Position::new(SegmentId::FIRST, 200);
    says(Proof::Frame(at), "the frame at 200 of 00000000000000000001.wal");
    says(Proof::Link(SegmentId::FIRST), "the link of 00000000000000000001.wal");
    says(Proof::Manifest, "the manifest");
    says(Proof::Header, "the header, which was synced before it was named");
    let kinds = [
        (RangeKind::Zeros, "zeros"),
        (RangeKind::Torn, "torn"),
        (RangeKind::Stale, "stale"),
        (RangeKind::Corrupt, "corrupt"),
        (RangeKind::Missing, "missing"),
        (RangeKind::Orphaned, "orphaned"),
    ];
    for (kind, word) in kinds {
        says(kind, word);
    }
}
