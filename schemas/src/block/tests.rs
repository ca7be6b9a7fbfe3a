//! Blocks of arbitrary types and rows: bit-exact there and back, and altered ones named.

mod sealed;

use super::*;
use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, Date32Array, ListArray,
    PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Field, Fields, Float64Type, Int64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, Schema, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType, i256,
};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::sync::Arc;

/// Reproducible numbers: one multiplication and a xor of the halves.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 29)
    }

    fn below(&mut self, bound: u64) -> usize {
        usize::try_from(self.next() % bound).unwrap()
    }

    fn data_type(&mut self, depth: u32) -> DataType {
        match self.below(if depth == 0 { 12 } else { 15 }) {
            0 => DataType::Boolean,
            1 => DataType::Int64,
            2 | 3 => DataType::Float64,
            4 => DataType::Utf8,
            5 => DataType::Binary,
            6 => DataType::Date32,
            7 => DataType::Time64(TimeUnit::Microsecond),
            8 => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            9 => DataType::Timestamp(TimeUnit::Microsecond, None),
            10 => DataType::Decimal128(38, 9),
            11 => DataType::Decimal256(76, 38),
            12 => DataType::Interval(IntervalUnit::MonthDayNano),
            13 => DataType::List(Arc::new(Field::new("item", self.data_type(depth - 1), true))),
            _ => DataType::Struct(self.fields(depth - 1)),
        }
    }

    fn fields(&mut self, depth: u32) -> Fields {
        let count = 1 + self.below(4);
        (0..count).map(|i| Field::new(format!("f{}", 9 - i), self.data_type(depth), true)).collect()
    }

    fn nulls(&mut self, len: usize) -> Option<NullBuffer> {
        match self.below(3) {
            0 => None,
            _ => Some((0..len).map(|_| self.below(4) > 0).collect::<Vec<bool>>().into()),
        }
    }

    fn primitive<T: ArrowPrimitiveType>(
        &mut self,
        len: usize,
        mut value: impl FnMut(&mut Self) -> T::Native,
    ) -> PrimitiveArray<T> {
        let values: Vec<T::Native> = (0..len).map(|_| value(self)).collect();
        PrimitiveArray::new(values.into(), self.nulls(len))
    }

    fn float(&mut self) -> f64 {
        match self.below(6) {
            0 => f64::from_bits(0x7ff0_0000_0000_0001 | (self.next() & 0x800f_ffff_ffff_ffff)),
            1 => -0.0,
            2 => f64::INFINITY,
            3 => f64::NEG_INFINITY,
            _ => f64::from_bits(self.next()),
        }
    }

    fn offsets(&mut self, len: usize) -> OffsetBuffer<i32> {
        OffsetBuffer::from_lengths((0..len).map(|_| self.below(4)).collect::<Vec<_>>())
    }

    #[expect(clippy::too_many_lines, reason = "one arm per type")]
    fn array(&mut self, data_type: &DataType, len: usize) -> ArrayRef {
        match data_type {
            DataType::Boolean => {
                let values: Vec<bool> = (0..len).map(|_| self.below(2) == 0).collect();
                Arc::new(BooleanArray::new(values.into(), self.nulls(len)))
            }
            #[expect(clippy::cast_possible_wrap, reason = "any bits will do")]
            DataType::Int64 => Arc::new(self.primitive::<Int64Type>(len, |r| r.next() as i64)),
            DataType::Float64 => Arc::new(self.primitive::<Float64Type>(len, Self::float)),
            DataType::Utf8 => {
                let words = ["", "ä", "log line", "\u{0}", "long text of no meaning at all"];
                let nulls = self.nulls(len);
                let values: Vec<_> = (0..len)
                    .map(|i| {
                        nulls.as_ref().is_none_or(|n| n.is_valid(i)).then(|| words[self.below(5)])
                    })
                    .collect();
                Arc::new(StringArray::from(values))
            }
            DataType::Binary => {
                let values: Vec<Option<Vec<u8>>> = (0..len)
                    .map(|_| {
                        (self.below(4) > 0)
                            .then(|| self.next().to_le_bytes()[self.below(9)..].to_vec())
                    })
                    .collect();
                Arc::new(values.iter().map(Option::as_deref).collect::<BinaryArray>())
            }
            DataType::Date32 => {
                let values: Vec<i32> =
                    (0..len).map(|_| self.next().to_le_bytes()[0].into()).collect();
                Arc::new(Date32Array::new(values.into(), self.nulls(len)))
            }
            #[expect(clippy::cast_possible_wrap, reason = "a day has fewer microseconds")]
            DataType::Time64(_) => Arc::new(
                self.primitive::<Time64MicrosecondType>(len, |r| r.below(86_400_000_000) as i64),
            ),
            #[expect(clippy::cast_possible_wrap, reason = "any bits will do")]
            DataType::Timestamp(_, zone) => Arc::new(
                self.primitive::<TimestampMicrosecondType>(len, |r| r.next() as i64)
                    .with_timezone_opt(zone.clone()),
            ),
            DataType::Decimal128(precision, scale) => Arc::new(
                self.primitive::<Decimal128Type>(len, |r| i128::from(r.next()) - (1 << 63))
                    .with_precision_and_scale(*precision, *scale)
                    .unwrap(),
            ),
            DataType::Decimal256(precision, scale) => Arc::new(
                self.primitive::<Decimal256Type>(len, |r| {
                    i256::from_parts(r.next().into(), 7 - r.below(15) as i128)
                })
                .with_precision_and_scale(*precision, *scale)
                .unwrap(),
            ),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_possible_wrap,
                reason = "any bits will do"
            )]
            DataType::Interval(_) => {
                Arc::new(self.primitive::<IntervalMonthDayNanoType>(len, |r| {
                    IntervalMonthDayNano::new(r.next() as i32, r.next() as i32, r.next() as i64)
                }))
            }
            DataType::List(field) => {
                let offsets = self.offsets(len);
                let values = self
                    .array(field.data_type(), usize::try_from(*offsets.last().unwrap()).unwrap());
                Arc::new(ListArray::new(Arc::clone(field), offsets, values, self.nulls(len)))
            }
            DataType::Struct(fields) => {
                let arrays = fields.iter().map(|f| self.array(f.data_type(), len)).collect();
                Arc::new(StructArray::new(fields.clone(), arrays, self.nulls(len)))
            }
            other => unreachable!("{other} is not drawn"),
        }
    }

    fn batch(&mut self, len: usize) -> RecordBatch {
        let fields = self.fields(3);
        let arrays = fields.iter().map(|f| self.array(f.data_type(), len)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    }
}

fn header(body: &Body) -> Header {
    Header {
        codec: CODEC_ZSTD_ARROW,
        is_last: true,
        rows: body.rows,
        ordinal: 3,
        generation: 5,
        snapshot_us: 1_790_000_000_000_000,
        last_modified_us: -1,
        expires_us: None,
        table_created_ms: 9,
        digest: body.digest,
        digest_version: crate::digest::DIGEST_VERSION,
        schema_hash: u128::MAX - 7,
        raw_bytes: body.raw_bytes,
        body_bytes: body.bytes.len() as u64,
        body_xxh3: body.xxh3,
        key_id: None,
        table: "logs.build_logs".into(),
        table_id: "p:logs.build_logs".into(),
        table_partition: "20261101".into(),
    }
}

fn value(body: &Body) -> Vec<u8> {
    [header(body).to_bytes(), body.bytes.clone()].concat()
}

/// Bits, not values: NaN equals itself here, and -0 differs from 0.
fn assert_same_bits(a: &RecordBatch, b: &RecordBatch) {
    assert_eq!(a.schema(), b.schema());
    for (a, b) in a.columns().iter().zip(b.columns()) {
        assert_eq!(bits(a.as_ref()), bits(b.as_ref()));
    }
}

fn bits(array: &dyn Array) -> String {
    use arrow::array::AsArray;
    let mut out = String::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            out.push_str("null ");
            continue;
        }
        match array.data_type() {
            DataType::Float64 => {
                let value = array.as_primitive::<Float64Type>().value(row);
                write!(out, "{:x} ", value.to_bits()).unwrap();
            }
            DataType::List(_) => {
                write!(out, "[{}] ", bits(&array.as_list::<i32>().value(row))).unwrap();
            }
            DataType::Struct(_) => {
                let fields = array.as_struct().columns().iter();
                let fields: Vec<String> = fields.map(|f| bits(f.slice(row, 1).as_ref())).collect();
                write!(out, "{{{}}} ", fields.join(",")).unwrap();
            }
            _ => write!(out, "{:?} ", array.slice(row, 1)).unwrap(),
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn decode_of_encode_is_the_same_to_the_bit(seed: u64, len in 0_usize..60, cut in 0_usize..60) {
        let whole = Random(seed).batch(len);
        let cut = cut.min(len);
        // Slices carry offsets into shared buffers; joined they are the whole again.
        let parts = [whole.slice(0, cut), whole.slice(cut, len - cut)];
        let bodies = encode(&parts).unwrap();
        prop_assert_eq!(bodies.len(), 1);
        let stored = value(&bodies[0]);
        let (read, body) = open(&stored).unwrap();
        prop_assert_eq!(&read, &header(&bodies[0]));
        let rows = decode(&read, body).unwrap();
        assert_same_bits(&rows, &whole);
        prop_assert_eq!(digest(&rows).unwrap(), read.digest);
        prop_assert_eq!(digest(&whole).unwrap(), read.digest);
        let mut in_parts = digest(&parts[1]).unwrap();
        in_parts += digest(&parts[0]).unwrap();
        prop_assert_eq!(in_parts, read.digest);
    }

    #[test]
    fn altered_bytes_are_named_and_never_panic(seed: u64, at: prop::sample::Index, by in 1_u8.., cut: bool) {
        let rows = Random(seed).batch(20);
        let mut stored = value(&encode(&[rows]).unwrap()[0]);
        let at = at.index(stored.len());
        if cut { stored.truncate(at) } else { stored[at] ^= by }
        prop_assert!(open(&stored).is_err());
    }

    #[test]
    fn a_body_with_a_matching_check_that_is_no_arrow_is_an_error(seed: u64, flips in 1_usize..8) {
        let mut random = Random(seed);
        let rows = random.batch(20);
        let mut body = encode(&[rows]).unwrap().remove(0);
        for _ in 0..flips {
            let at = random.below(body.bytes.len() as u64);
            body.bytes[at] ^= 1 << random.below(8);
        }
        body.xxh3 = xxh3_64(&body.bytes);
        let stored = value(&body);
        let (read, bytes) = open(&stored).unwrap();
        // Whatever it decodes to, the digest of it is what tells.
        let _decoded_or_not = decode(&read, bytes).map(|rows| digest(&rows));
    }

    #[test]
    fn arbitrary_bytes_are_no_block(bytes: Vec<u8>) {
        prop_assert!(open(&bytes).is_err());
        prop_assert!(open(&[&MAGIC, bytes.as_slice()].concat()).is_err());
    }
}

#[test]
fn rows_beyond_the_largest_block_are_cut_and_stay_in_order() {
    let mut random = Random(1);
    let values: Vec<Vec<u8>> =
        (0..3_000).map(|_| (0..256).flat_map(|_| random.next().to_le_bytes()).collect()).collect();
    let column: ArrayRef = Arc::new(BinaryArray::from_iter_values(&values));
    let rows = RecordBatch::try_from_iter([("data", column)]).unwrap();
    let bodies = encode(std::slice::from_ref(&rows)).unwrap();
    assert!(bodies.len() >= 3);
    assert!(bodies.iter().all(|body| body.bytes.len() <= BLOCK_BYTES_MAX));
    let decoded: Vec<RecordBatch> =
        bodies.iter().map(|body| decode(&header(body), &body.bytes).unwrap()).collect();
    assert_eq!(concat_batches(rows.schema_ref(), &decoded).unwrap(), rows);
}

#[test]
fn a_newer_version_or_codec_is_called_that() {
    let body = encode(&[Random(3).batch(5)]).unwrap().remove(0);
    let mut newer = value(&body);
    newer[8] = 3;
    assert_eq!(open(&newer), Err(BlockError::UnknownVersion { version: 3 }));
    let other = Header { codec: 9, ..header(&body) }.to_bytes();
    assert_eq!(open(&other), Err(BlockError::UnknownCodec { codec: 9 }));
}
