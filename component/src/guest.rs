//! The contract's resources: a log, its readers and its subscriptions.

use crate::bindings::Component;
use crate::bindings::exports::seawall::log::{log as wit, types};
use crate::values;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use seawall_core::config::Level;
use seawall_core::error::AppendError;
use seawall_core::id::{Lsn, Time};
use seawall_core::log::SegmentInfo;
use seawall_wasi::wasi::{Preopened, WasiFolder};
use seawall_wasi::{OpenError, Reader, Source, Wal};
use wasip2::clocks::wall_clock;
use wasip2::filesystem::types::Descriptor;
use wasip2::random::random::get_random_u64;

type SharedWal = Rc<RefCell<Wal<WasiFolder>>>;

/// An open log. Readers and subscriptions share it.
pub(crate) struct OpenLog {
    wal: SharedWal,
}

pub(crate) struct OpenCursor {
    wal: SharedWal,
    reader: RefCell<Reader<WasiFolder>>,
}

pub(crate) struct OpenSubscription {
    wal: SharedWal,
    interest: types::Interest,
}

impl wit::Guest for Component {
    type Log = OpenLog;
    type Cursor = OpenCursor;
    type Subscription = OpenSubscription;

    fn default_config() -> types::Config {
        values::default_config()
    }
}

fn now() -> Time {
    let now = wall_clock::now();
    let micros = now.seconds.saturating_mul(1_000_000).saturating_add(u64::from(
        // Less than a second, as the standard says.
        now.nanoseconds / 1_000,
    ));
    Time::from_micros(micros)
}

fn open(
    parent: WasiFolder,
    folder: &str,
    config: types::Config,
) -> Result<(wit::Log, types::Recovery), types::Error> {
    let source = Source { now, random: get_random_u64 };
    let opened = Wal::open(parent, folder, values::settings(config), source);
    let (wal, report) = opened.map_err(values::open_error)?;
    let log = OpenLog { wal: Rc::new(RefCell::new(wal)) };
    Ok((wit::Log::new(log), values::recovery(&report)))
}

impl wit::GuestLog for OpenLog {
    fn open(
        folder: String,
        config: types::Config,
    ) -> Result<(wit::Log, types::Recovery), types::Error> {
        let parent = WasiFolder::preopened().map_err(|why| match why {
            Preopened::Count(count) => {
                types::Error::Folder(format!("one folder must be preopened, and {count} are"))
            }
            Preopened::Refused(refusal) => values::open_error(OpenError::Folder(refusal)),
        })?;
        open(parent, &folder, config)
    }

    fn open_at(
        directory: &Descriptor,
        folder: String,
        config: types::Config,
    ) -> Result<(wit::Log, types::Recovery), types::Error> {
        let parent = WasiFolder::lent(directory)
            .map_err(|_| types::Error::Folder("it is no folder to write to".into()))?;
        open(parent, &folder, config)
    }

    fn append_batch(
        &self,
        records: types::Batch,
        level: Option<types::Level>,
    ) -> Result<types::Appended, types::Error> {
        let records = values::records(&records)?;
        let mut wal = self.wal.borrow_mut();
        let level = level.map_or(wal.level(), values::level);
        let groups = wal.append_groups(&records, &[records.len()], level);
        match (groups.appended.first(), groups.error) {
            (Some(appended), None) => Ok(values::appended(*appended)),
            (_, Some(error)) => Err(values::append_error(error)),
            (None, None) => Err(values::append_error(AppendError::EmptyBatch)),
        }
    }

    fn append_groups(
        &self,
        records: types::Batch,
        groups: Vec<u32>,
        level: Option<types::Level>,
    ) -> Result<types::GroupResult, types::Error> {
        let records = values::records(&records)?;
        let groups = values::groups(&groups, records.len())?;
        let mut wal = self.wal.borrow_mut();
        let level = level.map_or(wal.level(), values::level);
        let groups = wal.append_groups(&records, &groups, level);
        Ok(types::GroupResult {
            appended: groups.appended.into_iter().map(values::appended).collect(),
            error: groups.error.map(values::append_error),
        })
    }

    fn flush(&self) -> Result<u64, types::Error> {
        self.reach(Level::Os)
    }

    fn sync(&self) -> Result<u64, types::Error> {
        self.reach(Level::Disk)
    }

    fn wait_durable(&self, lsn: u64) -> Result<(), types::Error> {
        let last = self.wal.borrow().log().appended().lsn.get();
        if lsn > last {
            return Err(types::Error::BeyondEnd(last));
        }
        if self.wal.borrow().log().durable().lsn.get() >= lsn {
            return Ok(());
        }
        self.reach(Level::Disk).map(drop)
    }

    fn read_from(
        &self,
        start: types::Start,
        visibility: types::Visibility,
    ) -> Result<wit::Cursor, types::Error> {
        let level = match visibility {
            types::Visibility::Durable => Level::Disk,
            types::Visibility::Written => Level::Os,
        };
        let mut wal = self.wal.borrow_mut();
        match wal.flush(level) {
            // What was durable before can still be read.
            Ok(_) | Err(AppendError::Poisoned(_) | AppendError::Closed) => {}
            Err(error) => return Err(values::append_error(error)),
        }
        let reader = Reader::new(&wal, values::start(start), values::visibility(visibility));
        let reader = RefCell::new(reader.map_err(values::read_error)?);
        drop(wal);
        Ok(wit::Cursor::new(OpenCursor { wal: self.wal.clone(), reader }))
    }

    fn subscribe(&self, interest: types::Interest) -> wit::Subscription {
        wit::Subscription::new(OpenSubscription { wal: self.wal.clone(), interest })
    }

    fn tick(&self, now_micros: Option<u64>) -> Result<Option<u64>, types::Error> {
        let next = self.wal.borrow_mut().tick(now_micros.map(Time::from_micros));
        Ok(next.map_err(values::append_error)?.map(Time::as_micros))
    }

    fn rotate(&self) -> Result<(), types::Error> {
        self.wal.borrow_mut().rotate().map_err(values::append_error)
    }

    fn delete_before(&self, lsn: u64) -> Result<u64, types::Error> {
        self.wal.borrow_mut().delete_before(Lsn::new(lsn)).map_err(values::request_error)
    }

    fn truncate_after(&self, lsn: u64) -> Result<(), types::Error> {
        self.wal.borrow_mut().truncate_after(Lsn::new(lsn)).map_err(values::request_error)
    }

    fn close(&self) -> Result<(), types::Error> {
        self.wal.borrow_mut().close().map_err(values::request_error)
    }

    fn stats(&self) -> types::Stats {
        let wal = self.wal.borrow();
        let log = wal.log();
        let (appended, written, durable) = (log.appended(), log.written(), log.durable());
        let mut segments: Vec<_> = log.segments().map(segment_stats).collect();
        if let Some(active) = segments.last_mut().filter(|segment| !segment.is_sealed) {
            (active.last, active.bytes) = (appended.lsn.get(), appended.end.offset);
        }
        let ((appends, records), (writes, syncs)) = (wal.appends(), wal.calls());
        types::Stats {
            first: log.first_lsn().get(),
            last: appended.lsn.get(),
            written: written.lsn.get(),
            durable: durable.lsn.get(),
            end: values::position(appended.end),
            segments,
            appends,
            records,
            writes,
            syncs,
            syncs_directories: wal.syncs_directories(),
            events_dropped: log.events_dropped(),
        }
    }

    fn take_events(&self) -> Vec<types::Event> {
        let mut wal = self.wal.borrow_mut();
        core::iter::from_fn(|| wal.poll_event()).map(values::event).collect()
    }
}

impl OpenLog {
    fn reach(&self, level: Level) -> Result<u64, types::Error> {
        self.wal.borrow_mut().flush(level).map(Lsn::get).map_err(values::append_error)
    }
}

impl Drop for OpenLog {
    fn drop(&mut self) {
        self.wal.borrow_mut().let_go();
    }
}

fn segment_stats(info: SegmentInfo) -> types::SegmentStats {
    types::SegmentStats {
        segment: info.segment.get(),
        first: info.first_lsn.get(),
        last: info.end.map_or(info.first_lsn.previous(), |end| end.last_lsn).get(),
        bytes: info.end.map_or(0, |end| end.frames_end),
        is_sealed: info.end.is_some(),
    }
}

impl wit::GuestCursor for OpenCursor {
    fn read_batch(&self, bytes_max: u32) -> Result<types::Page, types::Error> {
        let page = self.reader.borrow_mut().read(&self.wal.borrow(), u64::from(bytes_max));
        page.map(values::page).map_err(values::read_error)
    }

    fn skip_damage(&self) {
        self.reader.borrow_mut().skip_damage(&self.wal.borrow());
    }

    fn next_lsn(&self) -> u64 {
        self.reader.borrow().next_lsn().get()
    }
}

impl wit::GuestSubscription for OpenSubscription {
    fn ready(&self) -> Result<bool, types::Error> {
        let wal = self.wal.borrow();
        let durable = wal.log().durable().lsn.get();
        let is_there = match self.interest {
            types::Interest::Durable(lsn) => durable >= lsn,
            types::Interest::RecordsAfter(lsn) => durable > lsn,
        };
        match wal.log().poison() {
            _ if is_there => Ok(true),
            Some(poison) => Err(values::append_error(AppendError::Poisoned(poison))),
            None if wal.log().is_closed() => Err(types::Error::Closed),
            None => Ok(false),
        }
    }
}
