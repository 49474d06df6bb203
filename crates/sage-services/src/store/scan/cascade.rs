//! A search in codes, from coarse to fine: the signs of the head, all signs, the levels, the rows themselves.
//!
//! Each stage first scores the rows that look best exactly, and so learns a floor: what the worst row of the result
//! scores at least. Then it drops the rows that reach the floor too seldom to matter, as their estimate lies too many
//! spreads of its error below: that spread is known for each row. So the number of candidates follows from the data:
//! few among clusters, many among vectors without any.
//!
//! Invariant: every row of the result was scored exactly, and there are as many as asked for where so many are allowed.

use std::cmp::Ordering;

use super::best::Best;
use super::codes::{CHUNK, Factors, Head, Reach};
use super::kernel::{Kernel, Line, Rows, Sums, Task};
use super::quantised::{Quantised, of_block};
use super::query::Query;
use super::score::score;
use super::{Allowed, BLOCK, Found};

/// How many spreads below the floor an estimate may lie. Of the rows right at the floor, 0.5 % (2.6) or 0.3 % (2.75)
/// are missed; within tight clusters that is almost every row of a result, elsewhere most lie above.
const HEAD_SPREADS: f32 = 2.6;
const SIGN_SPREADS: f32 = 2.6;
const LEVEL_SPREADS: f32 = 2.75;

/// Up to so many allowed rows, the levels of all take less time than the signs.
const FEW: usize = 3_000;
/// So many candidates a block take longer, one by one, than the signs of the tail take for all its rows.
const CROWDED: usize = 2;
/// More candidates than this are estimated by their fine levels before they are scored.
const FEW_LEVELS: usize = 40;
/// Candidates between the one that is estimated and the one whose levels are asked for.
const AHEAD: usize = 8;

/// What a search works with.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    sums: Vec<Sums>,
    /// For each block, the highest of the sums of rows that are allowed, how far values may lie above what sums say
    /// (over the gain), and what no value is above.
    highest: Vec<u16>,
    margins: Vec<f32>,
    most: Vec<f32>,
    /// Blocks with candidates, and a bit for each.
    blocks: Vec<(u32, u32)>,
    /// Rows with their estimates.
    candidates: Vec<(f32, u32)>,
    /// A bit for each row that was scored.
    scored: Vec<u64>,
}

/// How many rows a stage scores in order to learn a floor.
fn probes(k: usize) -> usize {
    k + (k / 2).max(14)
}

type ByRow = fn(u32, u32) -> Ordering;

fn by_row(a: u32, b: u32) -> Ordering {
    a.cmp(&b)
}

/// A search in codes. It gives `None` where they say nothing, as the query lies at the centre or values overflow.
pub(super) struct Cascade<'a, O> {
    pub(super) index: &'a Quantised,
    pub(super) query: &'a [f32],
    pub(super) matrix: &'a [f32],
    pub(super) allowed: Allowed<'a>,
    /// Number of rows that are allowed.
    pub(super) count: usize,
    /// 1 or more.
    pub(super) k: usize,
    pub(super) order: O,
}

impl<O: Fn(u32, u32) -> Ordering> Task for Cascade<'_, O> {
    type Output = Option<Vec<Found>>;

    #[inline(always)]
    fn run(self, kernel: impl Kernel) -> Self::Output {
        let Self { index, query: vector, matrix, allowed, count, k, order } = self;
        let mut search = Search {
            kernel,
            index,
            vector,
            matrix,
            query: Query::new(vector, &index.encoder)?,
            allowed,
            best: Best::new(k, index.rows, order),
            finest: Best::new(probes(k), index.rows, by_row),
            probes: Best::new(2 * probes(k), index.rows, by_row),
            scratch: index.scratch(),
        };
        search.run(count);
        index.give_back(search.scratch);
        let found = search.best.into_sorted();
        (found.len() == k.min(count)).then_some(found)
    }
}

struct Search<'a, K, O> {
    kernel: K,
    index: &'a Quantised,
    vector: &'a [f32],
    matrix: &'a [f32],
    query: Query,
    allowed: Allowed<'a>,
    /// Rows scored exactly.
    best: Best<O>,
    /// Rows whose levels are best, and rows whose signs are best.
    finest: Best<ByRow>,
    probes: Best<ByRow>,
    scratch: Scratch,
}

impl<K: Kernel, O: Fn(u32, u32) -> Ordering> Search<'_, K, O> {
    #[inline(always)]
    fn run(&mut self, count: usize) {
        let rows = self.index.rows;
        self.scratch.scored.clear();
        self.scratch.scored.resize(rows.div_ceil(64), 0);
        self.scratch.candidates.clear();
        if count <= FEW {
            let candidates = &mut self.scratch.candidates;
            self.allowed.for_each(|row| candidates.push((0.0, row)));
        } else {
            self.search_signs();
        }
        self.search_levels();
    }

    /// Leaves the rows that the signs do not rule out in `candidates`.
    #[inline(always)]
    fn search_signs(&mut self) {
        self.estimate_heads();
        let floor = self.score_probes();
        let candidates = self.drop_heads(floor);
        if self.index.encoder.shape.chunks > 1 && candidates > CROWDED * self.scratch.blocks.len() {
            self.estimate_tails();
            let floor = self.score_probes();
            self.drop_signs(floor);
        } else {
            self.list_heads(floor);
        }
    }

    /// Sums up the heads, and finds rows whose values are high: those of the blocks with the highest ones.
    #[inline(always)]
    fn estimate_heads(&mut self) {
        let Self { kernel, index, query, allowed, probes, scratch, .. } = self;
        let (line, table, codes) = (query.head(), &query.tables[0], &index.codes);
        let blocks = codes.heads.len();
        scratch.sums.resize(blocks, Sums([0; BLOCK]));
        scratch.highest.resize(blocks, 0);
        let all = scratch.sums.iter_mut().zip(&mut scratch.highest).zip(&codes.heads).enumerate();
        for (block, ((sums, highest), head)) in all {
            let bits = allowed.block(block);
            *highest = if bits == 0 { 0 } else { kernel.look_up_head(&head.signs, table, bits, sums) };
        }
        let reach = codes.reach.offset.iter().zip(&codes.reach.gain);
        let most = |(highest, (offset, gain)): (&u16, (&f32, &f32))| line.most(*highest, *offset, *gain);
        scratch.most.clear();
        scratch.most.extend(scratch.highest.iter().zip(reach).map(most));
        let mut high_blocks = Best::new(probes.limit(), blocks, by_row as ByRow);
        for (block, most) in scratch.most.iter().enumerate() {
            high_blocks.offer(block as u32, *most);
        }
        high_blocks.prune();
        for block in high_blocks.found() {
            let block = block.row as usize;
            let (sums, rows) = (&scratch.sums[block], index.heads(block));
            let above = kernel.compare(sums, rows, line, probes.floor());
            offer(probes, block, above & allowed.block(block), sums, rows, line);
        }
    }

    /// Keeps the blocks in which a head may reach `floor`, and returns the number of candidates.
    #[inline(always)]
    fn drop_heads(&mut self, floor: f32) -> usize {
        let Self { kernel, index, query, allowed, scratch, .. } = self;
        let (line, heads, variance) = (query.head(), &index.codes.heads, query.table_variance(1));
        let Reach { offset, gain, radius, slant } = &index.codes.reach;
        let margin = |((offset, radius), slant): ((&f32, &f32), &f32)| {
            query.head_margin(*slant, variance, query.missing(floor, *offset, *radius), HEAD_SPREADS)
        };
        scratch.margins.clear();
        scratch.margins.extend(offset.iter().zip(radius).zip(slant).map(margin));
        let most = |((highest, margin), (offset, gain)): ((&u16, &f32), (&f32, &f32))| {
            line.plus(*margin).most(*highest, *offset, *gain)
        };
        let known = scratch.highest.iter().zip(&scratch.margins);
        scratch.most.clear();
        scratch.most.extend(known.zip(offset.iter().zip(gain)).map(most));
        let reaches = scratch.most.iter().enumerate().filter(|(_, most)| **most >= floor);
        scratch.blocks.clear();
        scratch.blocks.extend(reaches.map(|(block, _)| (block as u32, 0)));
        let mut candidates = 0;
        for at in 0..scratch.blocks.len() {
            if let Some((next, _)) = scratch.blocks.get(at + AHEAD) {
                let Head { offset, gain, .. } = &heads[*next as usize];
                kernel.prefetch(offset);
                kernel.prefetch(gain);
            }
            let (block, bits) = &mut scratch.blocks[at];
            let block = *block as usize;
            let line = line.plus(scratch.margins[block]);
            *bits = kernel.compare(&scratch.sums[block], index.heads(block), line, floor) & allowed.block(block);
            candidates += bits.count_ones() as usize;
        }
        scratch.blocks.retain(|(_, bits)| *bits != 0);
        candidates
    }

    /// Makes candidates of the heads that may reach `floor`.
    #[inline(always)]
    fn list_heads(&mut self, floor: f32) {
        let Self { index, query, scratch, .. } = self;
        let (line, variance) = (query.head(), query.table_variance(1));
        let per_dimension = 1.0 / (index.encoder.shape.padded - 1) as f32;
        for (at, &(block, bits)) in scratch.blocks.iter().enumerate() {
            if let Some(&(next, bits)) = scratch.blocks.get(at + AHEAD) {
                let row = next as usize * BLOCK + bits.trailing_zeros() as usize;
                self.kernel.prefetch(&index.codes.factors[row..=row]);
            }
            let sums = &scratch.sums[block as usize];
            for_each_bit(bits, |lane| {
                let row = block as usize * BLOCK + lane;
                let Factors { offset, radius, .. } = index.codes.factors[row];
                let gain = index.codes.heads[block as usize].gain[lane];
                let error = ((CHUNK as f32 * gain * gain - radius * radius) * per_dimension).max(0.0).sqrt();
                let estimate = line.value(sums.0[lane], offset, gain, 0.0);
                let factors = Factors { offset, radius, gain, error, ..Factors::default() };
                if estimate + query.margin(factors, variance, floor, HEAD_SPREADS) >= floor {
                    scratch.candidates.push((estimate, row as u32));
                }
            });
        }
    }

    /// Adds the signs of the tail to the sums of the candidates' blocks.
    #[inline(always)]
    fn estimate_tails(&mut self) {
        let Self { kernel, index, query, probes, scratch, .. } = self;
        let (line, tables) = (query.signs(), &query.tables[1..]);
        let tail = index.encoder.shape.tail();
        for &(block, bits) in &scratch.blocks {
            let block = block as usize;
            let sums = &mut scratch.sums[block];
            kernel.look_up(&index.codes.tail[block * tail..][..tail], tables, sums);
            let rows = index.signs(block);
            let above = kernel.compare(sums, rows, line, probes.floor());
            offer(probes, block, bits & above, sums, rows, line);
        }
    }

    /// Makes candidates of the rows whose signs may reach `floor`.
    #[inline(always)]
    fn drop_signs(&mut self, floor: f32) {
        let Self { kernel, index, query, scratch, .. } = self;
        let variance = query.table_variance(index.encoder.shape.chunks);
        let line = Line { margin: query.weight * SIGN_SPREADS * 1.05, ..query.signs() };
        for &(block, bits) in &scratch.blocks {
            let (sums, rows) = (&scratch.sums[block as usize], index.signs(block as usize));
            let error = of_block(&index.codes.error, block as usize);
            let above = kernel.compare(sums, Rows { error: Some(error), ..rows }, line, floor);
            for_each_bit(bits & above, |lane| {
                let row = block as usize * BLOCK + lane;
                let Factors { offset, radius, .. } = index.codes.factors[row];
                let (gain, error) = (rows.gain[lane], error[lane]);
                let factors = Factors { offset, radius, gain, error, ..Factors::default() };
                let estimate = line.value(sums.0[lane], offset, factors.gain, 0.0);
                if estimate + query.margin(factors, variance, floor, SIGN_SPREADS) >= floor {
                    scratch.candidates.push((estimate, row as u32));
                }
            });
        }
    }

    /// Estimates the candidates by their levels, and scores those that may be among the best.
    #[inline(always)]
    fn search_levels(&mut self) {
        self.estimate_candidates(Quantised::levels, Self::estimate_levels);
        let floor = self.score_finest();
        let Self { index, query, scratch, .. } = self;
        let variance = query.level_variance();
        scratch.candidates.retain_mut(|(estimate, row)| {
            *estimate += query.margin(index.codes.factors[*row as usize], variance, floor, LEVEL_SPREADS);
            *estimate >= floor
        });
        if self.scratch.candidates.len() > FEW_LEVELS {
            self.search_fine();
        }
        self.scratch.candidates.sort_unstable_by(|(a, _), (b, _)| b.total_cmp(a));
        for at in 0..self.scratch.candidates.len() {
            let (highest, row) = self.scratch.candidates[at];
            if highest < self.query.floor(self.best.floor()) {
                break;
            }
            if let Some((_, next)) = self.scratch.candidates.get(at + 1) {
                self.kernel.prefetch(self.row(*next));
            }
            self.score(row);
        }
    }

    /// Drops the candidates that their fine levels rule out.
    #[inline(always)]
    fn search_fine(&mut self) {
        self.estimate_candidates(Quantised::fine, Self::estimate_fine);
        let floor = self.score_finest();
        let Self { index, query, scratch, .. } = self;
        let variance = query.rest_variance();
        scratch.candidates.retain_mut(|(estimate, row)| {
            let factors = index.codes.factors[*row as usize];
            let fine = Factors { gain: factors.fine_gain, error: factors.fine_error, ..factors };
            *estimate += query.margin(fine, variance, floor, LEVEL_SPREADS);
            *estimate >= floor
        });
    }

    /// Estimates each candidate by a code.
    #[inline(always)]
    fn estimate_candidates(&mut self, code: fn(&Quantised, usize) -> &[u8], estimate: impl Fn(&Self, u32) -> f32) {
        for at in 0..self.scratch.candidates.len() {
            if let Some((_, next)) = self.scratch.candidates.get(at + AHEAD) {
                self.kernel.prefetch(code(self.index, *next as usize));
            }
            let row = self.scratch.candidates[at].1;
            let estimate = estimate(self, row);
            self.scratch.candidates[at].0 = estimate;
            self.finest.offer(row, estimate);
        }
    }

    #[inline(always)]
    fn estimate_levels(&self, row: u32) -> f32 {
        let dot = self.kernel.dot_levels(self.index.levels(row as usize), &self.query.levels);
        self.query.level_value(dot, self.index.codes.factors[row as usize])
    }

    #[inline(always)]
    fn estimate_fine(&self, row: u32) -> f32 {
        let codes = [self.index.levels(row as usize), self.index.fine(row as usize)];
        let dots = codes.map(|code| self.kernel.dot_levels(code, &self.query.levels));
        let rests = codes.map(|code| self.kernel.dot_levels(code, &self.query.rests));
        self.query.fine_value(dots, rests, self.index.codes.factors[row as usize])
    }

    /// Scores the best of the rows with the best signs, and returns the value that all of the result reach.
    #[inline(always)]
    fn score_probes(&mut self) -> f32 {
        self.probes.prune();
        for at in 0..self.probes.found().len() {
            if let Some(next) = self.probes.found().get(at + AHEAD) {
                self.kernel.prefetch(self.index.levels(next.row as usize));
            }
            let row = self.probes.found()[at].row;
            let estimate = self.estimate_levels(row);
            self.finest.offer(row, estimate);
        }
        self.probes.clear();
        self.score_finest()
    }

    #[inline(always)]
    fn score_finest(&mut self) -> f32 {
        self.finest.prune();
        for at in 0..self.finest.found().len() {
            if let Some(next) = self.finest.found().get(at + 1) {
                self.kernel.prefetch(self.row(next.row));
            }
            self.score(self.finest.found()[at].row);
        }
        self.finest.clear();
        self.best.prune();
        self.query.floor(self.best.floor())
    }

    #[inline(always)]
    fn score(&mut self, row: u32) {
        let (word, bit) = (row as usize / 64, 1 << (row % 64));
        if self.scratch.scored[word] & bit == 0 {
            self.scratch.scored[word] |= bit;
            self.best.offer(row, score(self.kernel, self.index.metric, self.vector, self.row(row)));
        }
    }

    fn row(&self, row: u32) -> &[f32] {
        &self.matrix[row as usize * self.vector.len()..][..self.vector.len()]
    }
}

/// Offers the rows of a block whose bit is set.
#[inline(always)]
fn offer(probes: &mut Best<ByRow>, block: usize, bits: u32, sums: &Sums, rows: Rows<'_>, line: Line) {
    for_each_bit(bits, |lane| {
        let estimate = line.value(sums.0[lane], rows.offset[lane], rows.gain[lane], 0.0);
        probes.offer((block * BLOCK + lane) as u32, estimate);
    });
}

#[inline(always)]
fn for_each_bit(mut bits: u32, mut act: impl FnMut(usize)) {
    while bits != 0 {
        act(bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}
