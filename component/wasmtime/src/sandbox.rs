//! One instance of the component in a store of its own, with one folder.

use crate::bindings::exports::seawall::log::types::{GroupResult, Page};
use crate::bindings::{Seawall, SeawallPre};
use crate::program::Limits;
use crate::types;
use std::fs::File;
use wasmtime::component::{Resource, ResourceAny, ResourceTable};
use wasmtime::{Store, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::filesystem::{Descriptor, Dir, OpenMode};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

/// What the host keeps for a component.
pub(crate) struct Room {
    context: WasiCtx,
    table: ResourceTable,
    limits: StoreLimits,
}

impl WasiView for Room {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.context, table: &mut self.table }
    }
}

/// A call's result: outside that it trapped, inside what the log says.
pub(crate) type Called<T> = wasmtime::Result<Result<T, types::Error>>;

/// One log at most, and its cursors.
pub(crate) struct Sandbox {
    store: Store<Room>,
    instance: Seawall,
    fuel_per_call: u64,
}

impl Sandbox {
    /// With nothing of this machine: [`Sandbox::open`] hands in a folder.
    pub(crate) fn new(program: &SeawallPre<Room>, limits: Limits) -> wasmtime::Result<Self> {
        let bounds = StoreLimitsBuilder::new()
            .memory_size(limits.memory_bytes)
            .table_elements(limits.table_elements)
            .build();
        let mut context = WasiCtxBuilder::new();
        // The thread is the log's own, and has nothing else to do while a call blocks.
        context.allow_blocking_current_thread(true);
        let context = context.build();
        let room = Room { context, table: ResourceTable::new(), limits: bounds };
        let mut store = Store::new(program.engine(), room);
        store.limiter(|room| &mut room.limits);
        store.set_fuel(limits.fuel_per_call)?;
        let instance = program.instantiate(&mut store)?;
        Ok(Self { store, instance, fuel_per_call: limits.fuel_per_call })
    }

    /// What is needed for a call: each has its own fuel.
    fn ready(&mut self) -> wasmtime::Result<(&mut Store<Room>, &Seawall)> {
        self.store.set_fuel(self.fuel_per_call)?;
        Ok((&mut self.store, &self.instance))
    }

    pub(crate) fn default_config(&mut self) -> wasmtime::Result<types::Config> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().call_default_config(store)
    }

    /// Opens the log in a folder, which is all of this machine that the component gets.
    pub(crate) fn open(
        &mut self,
        folder: File,
        config: &types::Config,
    ) -> Called<(ResourceAny, types::Recovery)> {
        let (store, instance) = self.ready()?;
        let folder = Dir::new(folder, FsPerms::ReadWrite, OpenMode::READ | OpenMode::WRITE, true);
        let folder = store.data_mut().table.push(Descriptor::Dir(folder))?;
        let lent = Resource::new_borrow(folder.rep());
        let opened =
            instance.seawall_log_log().log().call_open_at(&mut *store, lent, "", config)?;
        store.data_mut().table.delete(folder)?;
        Ok(opened)
    }

    pub(crate) fn append(
        &mut self,
        log: ResourceAny,
        groups: &crate::batch::Groups,
        level: types::Level,
    ) -> Called<GroupResult> {
        let (store, instance) = self.ready()?;
        let guest = instance.seawall_log_log().log();
        guest.call_append_groups(store, log, &groups.records, &groups.sizes, Some(level))
    }

    pub(crate) fn sync(&mut self, log: ResourceAny, level: types::Level) -> Called<u64> {
        let (store, instance) = self.ready()?;
        let guest = instance.seawall_log_log().log();
        match level {
            types::Level::Disk => guest.call_sync(store, log),
            types::Level::Os | types::Level::Buffered => guest.call_flush(store, log),
        }
    }

    pub(crate) fn wait_durable(&mut self, log: ResourceAny, lsn: u64) -> Called<()> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().log().call_wait_durable(store, log, lsn)
    }

    pub(crate) fn read_from(
        &mut self,
        log: ResourceAny,
        start: types::Start,
        visibility: types::Visibility,
    ) -> Called<ResourceAny> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().log().call_read_from(store, log, start, visibility)
    }

    pub(crate) fn read_batch(&mut self, cursor: ResourceAny, bytes_max: u32) -> Called<Page> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().cursor().call_read_batch(store, cursor, bytes_max)
    }

    pub(crate) fn skip_damage(&mut self, cursor: ResourceAny) -> wasmtime::Result<()> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().cursor().call_skip_damage(store, cursor)
    }

    pub(crate) fn next_lsn(&mut self, cursor: ResourceAny) -> wasmtime::Result<u64> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().cursor().call_next_lsn(store, cursor)
    }

    pub(crate) fn subscribe(
        &mut self,
        log: ResourceAny,
        interest: types::Interest,
    ) -> wasmtime::Result<ResourceAny> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().log().call_subscribe(store, log, interest)
    }

    pub(crate) fn is_ready(&mut self, subscription: ResourceAny) -> Called<bool> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().subscription().call_ready(store, subscription)
    }

    pub(crate) fn tick(
        &mut self,
        log: ResourceAny,
        now_micros: Option<u64>,
    ) -> Called<Option<u64>> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().log().call_tick(store, log, now_micros)
    }

    pub(crate) fn rotate(&mut self, log: ResourceAny) -> Called<()> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().log().call_rotate(store, log)
    }

    pub(crate) fn delete_before(&mut self, log: ResourceAny, lsn: u64) -> Called<u64> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().log().call_delete_before(store, log, lsn)
    }

    pub(crate) fn truncate_after(&mut self, log: ResourceAny, lsn: u64) -> Called<()> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().log().call_truncate_after(store, log, lsn)
    }

    pub(crate) fn close(&mut self, log: ResourceAny) -> Called<()> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().log().call_close(store, log)
    }

    pub(crate) fn stats(&mut self, log: ResourceAny) -> wasmtime::Result<types::Stats> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().log().call_stats(store, log)
    }

    pub(crate) fn take_events(&mut self, log: ResourceAny) -> wasmtime::Result<Vec<types::Event>> {
        let (store, instance) = self.ready()?;
        instance.seawall_log_log().log().call_take_events(store, log)
    }

    /// Lets go of a log, a cursor or a subscription.
    pub(crate) fn release(&mut self, resource: ResourceAny) -> wasmtime::Result<()> {
        self.store.set_fuel(self.fuel_per_call)?;
        resource.resource_drop(&mut self.store)
    }
}
