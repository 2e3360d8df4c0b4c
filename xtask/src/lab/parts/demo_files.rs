//! Files that give a guest's disk something to back up.
//!
//! Knows: their names, sizes and kinds. Refuses to know: how content is made.

use crate::content::{MIB, Numbers, PAGE, file, log, noise, table};
use crate::lab::make_folder;
use base::Result;
use base::cancel::Cancel;
use std::path::Path;

/// Fills the folder with about 240 MiB in 26 files, the same in every run.
pub fn write(folder: &Path, cancel: &Cancel) -> Result<()> {
    make_folder(folder)?;
    let mut numbers = Numbers(20_261_122);
    for index in 0..12 {
        cancel.check()?;
        let path = folder.join(format!("photo-{index:02}.jpg"));
        file(&path, |out| noise(out, &mut numbers, 8 * MIB))?;
    }
    for index in 0..8 {
        cancel.check()?;
        let path = folder.join(format!("web-{index}.log"));
        file(&path, |out| log(out, &mut numbers, 12 * MIB))?;
    }
    for index in 0..6 {
        cancel.check()?;
        let path = folder.join(format!("table-{index}.db"));
        file(&path, |out| table(out, &mut numbers, 8 * MIB / PAGE))?;
    }
    Ok(())
}
