//! A query as the codes need it.
//!
//! The *value* of a row is its score in a form that codes estimate: with `q'` and `r'` for the query and the row less
//! the centre `c`, the inner product is `q·c + [c·r' + q'·r']` and the squared distance `|q'|² − [2 q'·r' − |r'|²]`;
//! the brackets are the value. It is the row's offset plus `weight × radius` times the cosine of `q'` and `r'`.

use super::codes::{CHUNK, Encoder, FINE_MIDDLE, Factors, GROUP, GROUPS, MIDDLE, PARTS, STEP};
use super::kernel::{Line, Table, sum};

/// A query, rotated and rounded.
pub(super) struct Query {
    pub(super) weight: f32,
    /// Rounded tables of all chunks. An entry is at most 15.
    pub(super) tables: Vec<Table>,
    /// What a sum of entries is multiplied with, and what is then added for the head and for all chunks.
    table_step: f32,
    head_base: f32,
    base: f32,
    /// Rounded coordinates, what rounding left of them in parts of a step, the step, and the sums of the two.
    pub(super) levels: Vec<i8>,
    pub(super) rests: Vec<i8>,
    level_step: f32,
    level_sum: f32,
    rest_sum: f32,
    is_euclidean: bool,
    /// The inner product with the centre, or the squared distance from it.
    at_centre: f32,
    /// How much rounding may move a value.
    rounding: f32,
}

impl Query {
    /// Gives `None` where the query lies at the centre, or so far from it that squares overflow: then codes say
    /// nothing.
    #[inline(always)]
    pub(super) fn new(vector: &[f32], encoder: &Encoder) -> Option<Self> {
        let shape = encoder.shape;
        let mut direction = vec![0.0; shape.padded];
        let radius = encoder.direction(vector, &mut direction);
        if radius == 0.0 || !(radius * radius).is_finite() {
            return None;
        }
        let signed = &direction[..shape.chunks * CHUNK];
        let reach = |group: &[f32]| group.iter().map(|x| x.abs()).sum::<f32>();
        let widest = signed.chunks_exact(GROUP).map(reach).fold(f32::MIN_POSITIVE, f32::max);
        let table_step = 2.0 * widest / 15.0;
        let mut tables = Vec::with_capacity(shape.chunks);
        for chunk in signed.chunks_exact(CHUNK) {
            tables.push(table(chunk, table_step));
        }
        let largest = direction.iter().fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
        let level_step = largest / 127.0;
        let (mut levels, mut rests) = (vec![0_i8; shape.padded], vec![0_i8; shape.padded]);
        for ((level, rest), x) in levels.iter_mut().zip(&mut rests).zip(&direction) {
            let steps = x / level_step;
            let whole = steps.round_ties_even();
            *level = whole as i32 as i8;
            *rest = ((steps - whole) * RESTS).round_ties_even() as i32 as i8;
        }
        let total = |numbers: &[i8]| numbers.iter().map(|&x| i32::from(x)).sum::<i32>() as f32;
        let length = |a: &[f32]| sum::<false>(a, a).sqrt();
        let is_euclidean = encoder.is_euclidean;
        let (at_centre, size) = if is_euclidean {
            (radius * radius, radius * radius)
        } else {
            (sum::<false>(vector, &encoder.centre), length(vector) * length(&encoder.centre))
        };
        Some(Self {
            weight: if is_euclidean { 2.0 * radius } else { radius },
            tables,
            table_step,
            head_base: -reach(&signed[..CHUNK]),
            base: -reach(signed),
            level_sum: total(&levels),
            rest_sum: total(&rests),
            levels,
            rests,
            level_step,
            is_euclidean,
            at_centre,
            rounding: ROUNDING * size,
        })
    }

    /// The least value of a row that scores `score`.
    pub(super) fn floor(&self, score: f32) -> f32 {
        let value = if self.is_euclidean { self.at_centre - score * score } else { score - self.at_centre };
        value - self.rounding - ROUNDING * if self.is_euclidean { score * score } else { score.abs() }
    }

    /// Estimates of the head, without a margin.
    pub(super) fn head(&self) -> Line {
        Line { factor: self.weight * self.table_step, base: self.weight * self.head_base, margin: 0.0 }
    }

    /// How far above the estimate of a head a value may lie, over the gain: at most `spreads` times the spread of its
    /// error.
    #[inline(always)]
    pub(super) fn head_margin(&self, slant: f32, variance: f32, missing: f32, spreads: f32) -> f32 {
        self.weight * spreads * (slant * missing + variance).sqrt()
    }

    /// Which part of a direction is not along the query, at least, where a value reaches `floor`: the squared sine.
    #[inline(always)]
    pub(super) fn missing(&self, floor: f32, offset: f32, radius: f32) -> f32 {
        #[expect(clippy::manual_clamp, reason = "NaN, where the radius is 0, becomes 0")]
        let cosine = ((floor - offset) / (self.weight * radius)).max(0.0).min(1.0);
        1.0 - cosine * cosine
    }

    /// Estimates of all signs, without a margin.
    pub(super) fn signs(&self) -> Line {
        Line { base: self.weight * self.base, ..self.head() }
    }

    /// The estimate of the value of a row whose levels have this inner product with those of the query.
    pub(super) fn level_value(&self, dot: i32, row: Factors) -> f32 {
        row.offset + self.weight * row.gain * self.level_step * (dot as f32 - MIDDLE * self.level_sum)
    }

    /// The same with fine levels, and with what rounding left of the query: the inner products of levels and of fine
    /// levels with the rounded query, and with its rests.
    pub(super) fn fine_value(&self, [dot, fine_dot]: [i32; 2], [rest, fine_rest]: [i32; 2], row: Factors) -> f32 {
        let dot = dot as f32 + fine_dot as f32 / PARTS - FINE_MIDDLE * self.level_sum;
        let rest = rest as f32 + fine_rest as f32 / PARTS - FINE_MIDDLE * self.rest_sum;
        row.offset + self.weight * row.fine_gain * self.level_step * (dot + rest / RESTS)
    }

    /// How far the estimate of a row that reaches `floor` lies below it, at most `spreads` times the spread of its
    /// error. `variance` is what the query's own rounding adds.
    pub(super) fn margin(&self, row: Factors, variance: f32, floor: f32, spreads: f32) -> f32 {
        let missing = self.missing(floor, row.offset, row.radius);
        let error = row.error * row.error * missing + row.gain * row.gain * variance;
        self.weight * spreads * error.sqrt()
    }

    /// The spread that the rounded tables of `chunks` chunks give to a sum, squared.
    pub(super) fn table_variance(&self, chunks: usize) -> f32 {
        self.table_step * self.table_step / 12.0 * (chunks * GROUPS) as f32
    }

    /// The spread that the rounded coordinates give to levels times the query, squared.
    pub(super) fn level_variance(&self) -> f32 {
        self.level_step * self.level_step / 12.0 * self.levels.len() as f32 / (STEP * STEP)
    }

    /// The same for the rests of rounded coordinates.
    pub(super) fn rest_variance(&self) -> f32 {
        self.level_variance() / (RESTS * RESTS)
    }
}

/// Parts into which the rest of a rounded coordinate is divided: ±½ step becomes −127 to 127.
const RESTS: f32 = 254.0;

/// What rounding adds to a score, over its size: some of the last bits of an `f32`.
const ROUNDING: f32 = 1e-6;

/// For each combination of signs, twice the sum of the coordinates whose sign it has, in steps: the sum over all
/// coordinates with these signs, counted from the least one.
#[inline(always)]
fn table(chunk: &[f32], step: f32) -> Table {
    let per_step = 2.0 / step;
    let mut table = Table([0; GROUPS * 16]);
    for (coordinates, entries) in chunk.as_chunks::<GROUP>().0.iter().zip(table.0.as_chunks_mut::<16>().0) {
        let [a, b, c, d] = coordinates.map(|x| [(-x).max(0.0) * per_step, x.max(0.0) * per_step]);
        let low = [a[0] + b[0], a[1] + b[0], a[0] + b[1], a[1] + b[1]];
        let high = [c[0] + d[0], c[1] + d[0], c[0] + d[1], c[1] + d[1]];
        for (signs, entry) in entries.iter_mut().enumerate() {
            // At most 15.5, and so in range.
            *entry = (low[signs % 4] + high[signs / 4] + 0.5) as i32 as u8;
        }
    }
    table
}
