//! Pages of start timestamps that are being written.

use chronolith_model::StartTimestamp;

use super::output::Output;
use crate::error::{Error, Result};
use crate::layout::directory::StartPageEntry;
use crate::layout::page::PageWriter;
use crate::starts::{GROUP_STEPS_MAX, StartEncoder};

#[derive(Debug, Default)]
pub(super) struct StartWriter {
    page: StartEncoder,
    last: Option<u32>,
    pub(super) pages: Vec<StartPageEntry>,
}

impl StartWriter {
    /// Adds the steps of a series, of which the first one holds for all before it too; nothing if no start is known.
    pub(super) fn push(
        &mut self,
        id: u32,
        steps: &[StartTimestamp],
        pages: &mut PageWriter,
        out: &mut Output,
    ) -> Result<()> {
        if let Some(last) = self.last.filter(|last| id <= *last) {
            let expected = u64::from(last) + 1;
            return Err(Error::Input { what: "series id of start timestamps", expected, got: id.into() });
        }
        if steps.iter().all(|step| step.start == 0) {
            return Ok(());
        }
        self.last = Some(id);
        for (number, group) in steps.chunks(GROUP_STEPS_MAX).enumerate() {
            if number > 0 {
                self.finish_page(pages, out)?;
            }
            self.page.push(id, group, number > 0);
        }
        if self.page.is_full() {
            self.finish_page(pages, out)?;
        }
        Ok(())
    }

    pub(super) fn finish_page(&mut self, pages: &mut PageWriter, out: &mut Output) -> Result<()> {
        let page = std::mem::take(&mut self.page);
        let Some((first, last)) = page.ends else { return Ok(()) };
        let mut bytes = Vec::new();
        pages.write(&page.content, &mut bytes);
        let unit = out.append_unit(&bytes)?;
        self.pages.push(StartPageEntry { unit, first, last, steps: page.steps });
        Ok(())
    }
}
