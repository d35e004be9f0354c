//! Whether an index is whole: every unit read, and every part compared with the others.

use super::{
    DiskIndex, SectionRead,
    column::SEGMENT_ROWS,
    error::{DiskIndexError, IndexSection},
    list::RowUnion,
    page::{self, Lists},
    section::Place,
};

type Result<T, E = DiskIndexError> = std::result::Result<T, E>;

impl<S: SectionRead> DiskIndex<S> {
    /// Reads every unit anew and compares lists, columns, sets and counts with each other. Takes 8 bytes of memory per
    /// row.
    ///
    /// # Errors
    /// The first damage found, or what could not be read.
    pub fn verify(&self) -> Result<()> {
        self.forget_pages();
        let mut series_of_row = vec![0u32; self.directory.rows as usize];
        for number in 0..self.directory.sets {
            self.set(number)?;
        }
        let mut count = |row: u32| {
            if let Some(series) = series_of_row.get_mut(row as usize) {
                *series += 1;
            }
        };
        self.metric_rows(self.nameless())?.rows_of(0..self.directory.nameless, &mut count);
        self.for_each_metric_in(0..u32::MAX, &mut |_, metric| {
            self.metric_rows(metric)?.rows_of(0..metric.count, &mut count);
            Ok(())
        })?;
        let mut codes = vec![0u32; self.directory.rows as usize];
        for label in 0..self.directory.labels.len() {
            self.verify_order(label)?;
            if self.directory.metric != Some(label) {
                codes.fill(0);
                self.verify_lists(label, &series_of_row, &mut codes)?;
                self.verify_columns(label, &codes)?;
            }
        }
        Ok(())
    }

    fn verify_order(&self, label: usize) -> Result<()> {
        let pages = self.label_at(label).map_or(&[][..], |entry| &entry.pages);
        let mut previous = String::new();
        for (at, entry) in pages.iter().enumerate() {
            let page = self.page(label, at)?;
            let place = page::dictionary_place(entry.offset);
            let first = page.value(0).unwrap_or_default();
            if *entry.separator > *first || *entry.separator <= *previous {
                return Err(place.malformed("a separator between the page and the one before"));
            }
            for value in (0..page.len()).filter_map(|at| page.value(at)) {
                if *value <= *previous {
                    return Err(place.malformed("values in order, none empty"));
                }
                value.clone_into(&mut previous);
            }
        }
        Ok(())
    }

    /// Puts the codes of a label together from its lists.
    fn verify_lists(&self, label: usize, series_of_row: &[u32], codes: &mut [u32]) -> Result<()> {
        let pages = self.label_at(label).map_or(&[][..], |entry| &entry.pages);
        for (at, entry) in pages.iter().enumerate() {
            let page = self.page(label, at)?;
            let place = page::dictionary_place(entry.offset);
            let Lists::Table(table) = &page.lists else { continue };
            for (in_page, code) in (0..page.len()).zip(entry.first + 1..) {
                let mut union = RowUnion::new(self.directory.rows, 0);
                self.union_lists(table, std::iter::once(in_page), &mut union)?;
                let mut series = 0;
                for row in &union.finish() {
                    series += series_of_row.get(row as usize).copied().unwrap_or_default();
                    match codes.get_mut(row as usize) {
                        Some(place) if *place == 0 => *place = code,
                        _ => return Err(place.malformed("one value of a label for a row")),
                    }
                }
                if series != page.count(in_page) {
                    return Err(place.malformed("as many series of a value as its rows have"));
                }
            }
        }
        Ok(())
    }

    fn verify_columns(&self, label: usize, codes: &[u32]) -> Result<()> {
        for (segment, codes) in (0..).zip(codes.chunks(SEGMENT_ROWS as usize)) {
            let column = self.column(label, segment)?;
            if (0..).zip(codes).any(|(row, code)| column.code(row) != *code) {
                let offset = self.column_offset(label, segment);
                let place = Place { section: IndexSection::Forward, offset };
                return Err(place.malformed("codes that agree with the lists"));
            }
        }
        let Some(entry) = self.label_at(label) else { return Ok(()) };
        let present = self.set(entry.presence)?.to_bitmap(self.directory.rows);
        let has = (0..).zip(codes).filter(|(_, code)| **code > 0).map(|(row, _): (u32, _)| row);
        if present.iter().eq(has) {
            return Ok(());
        }
        Err(page::dictionary_place(0).malformed("a set of the rows that have the label"))
    }
}
