//! Machine code made ahead of time.

use crate::error::Error;
use crate::program::{Limits, Program, engine, no_program};
use wasmtime::component::Component;

impl Program {
    /// Loads what [`Program::precompile`] made: a few milliseconds.
    ///
    /// # Errors
    /// [`Error::Program`] when it was made for another engine or machine.
    ///
    /// # Safety
    /// It is machine code, and it is run. It must come from [`Program::precompile`], by a way on
    /// which nobody could change it.
    pub unsafe fn load(precompiled: &[u8], limits: &Limits) -> Result<Self, Error> {
        let engine = engine()?;
        // SAFETY: the caller vouches for the bytes, as this function's contract says.
        let component = unsafe { Component::deserialize(&engine, precompiled) };
        Self::link(&engine, &component.map_err(|why| no_program(&why))?, *limits)
    }
}
