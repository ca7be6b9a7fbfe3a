//! Rows of a table as one Parquet file that any reader of Parquet opens, and back.
//!
//! Invariant: decoding gives the very arrays that were encoded, types and fields included. Where there is a key, nothing
//! but its id and the lengths of pages can be read without it.

use crate::error::{Error, Kind, Result};
use arrow::array::{ArrayData, RecordBatch, make_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use schemas::block::{self, BLOCK_ROWS_MAX, Body};
use schemas::digest::DIGEST_VERSION;
use schemas::{Digest, EncryptKey};
use std::sync::{Arc, Mutex, PoisonError};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes above which a file is cut in two, unless it holds a single row.
const FILE_BYTES_MAX: usize = 8 << 20;
/// The last bytes of a file whose footer is encrypted.
const ENCRYPTED: &[u8] = b"PARE";
/// What the names of all labels begin with, so that they are told from what the schema itself says.
const OWN: &str = "rekindle.";
/// What a file says of its rows, beside the labels of its writer.
const DIGEST: &str = "rekindle.digest";
const DIGEST_VERSION_OF: &str = "rekindle.digest_version";
/// Parquet has no type for an INTERVAL of months, days and nanoseconds; its 16 bytes are carried as they are. BigQuery
/// has no type that would be of a fixed length otherwise.
const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
const CARRIED: DataType = DataType::FixedSizeBinary(16);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Encodes rows into files of at most 8 MiB each; a row that is larger has one of its own.
pub fn encode(
    batches: &[RecordBatch],
    labels: &[(&'static str, String)],
    key: Option<&EncryptKey>,
) -> std::result::Result<Vec<Body>, Failure> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let rows = concat_batches(first.schema_ref(), batches)?;
    let mut bodies = Vec::with_capacity(1);
    encode_into(&rows, labels, key, &mut bodies)?;
    Ok(bodies)
}

fn encode_into(
    rows: &RecordBatch,
    labels: &[(&'static str, String)],
    key: Option<&EncryptKey>,
    bodies: &mut Vec<Body>,
) -> std::result::Result<(), Failure> {
    let count = rows.num_rows();
    let half = count / 2;
    if count <= BLOCK_ROWS_MAX {
        let digest = block::digest(rows)?;
        let bytes = write(rows, labels, key, digest)?;
        if bytes.len() <= FILE_BYTES_MAX || count <= 1 {
            let raw_bytes = block::raw_bytes(rows) as u64;
            let (xxh3, rows) = (xxh3_64(&bytes), u32::try_from(count)?);
            bodies.push(Body { bytes, raw_bytes, rows, digest, xxh3 });
            return Ok(());
        }
    }
    encode_into(&rows.slice(0, half), labels, key, bodies)?;
    encode_into(&rows.slice(half, count - half), labels, key, bodies)
}

fn write(
    rows: &RecordBatch,
    labels: &[(&'static str, String)],
    key: Option<&EncryptKey>,
    digest: Digest,
) -> std::result::Result<Vec<u8>, Failure> {
    let rows = retyped(rows, &INTERVAL, &CARRIED)?;
    let own = [(DIGEST, digest.hex()), (DIGEST_VERSION_OF, DIGEST_VERSION.to_string())];
    let told = labels.iter().chain(&own);
    let told = told.map(|(name, text)| KeyValue::new((*name).to_owned(), text.clone())).collect();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(told));
    if let Some(key) = key {
        let encryption = FileEncryptionProperties::builder(key.bytes().to_vec())
            .with_footer_key_metadata(key.id_text().into_bytes())
            .build()?;
        properties = properties.with_file_encryption_properties(encryption);
    }
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties.build()))?;
    writer.write(&rows)?;
    Ok(writer.into_inner()?)
}

/// Decodes a file; returns its rows and the digest it says they have, where this program can compare it.
///
/// What cannot be read is a `Difference`; a key that is not the file's is a `Config` that names both.
pub fn decode(file: Bytes, key: Option<&EncryptKey>) -> Result<(RecordBatch, Option<Digest>)> {
    let keys = Arc::new(Keys { key: key.cloned(), asked: Mutex::new(None) });
    let read = read(file, &keys);
    let asked = keys.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (read, asked) {
        (Ok(read), _) => Ok(read),
        (Err(_), Some(asked)) if key.map(EncryptKey::id_text).as_ref() != Some(&asked) => {
            Err(wrong_key(&asked, key))
        }
        (Err(error), _) => Err(Error::new(Kind::Difference, format!("it cannot be read: {error}"))),
    }
}

/// Returns the id of the key that a file is encrypted with; `None` for one that is not encrypted.
pub fn key_id(file: Bytes) -> Result<Option<String>> {
    if !file.ends_with(ENCRYPTED) {
        return Ok(None);
    }
    let keys = Arc::new(Keys { key: None, asked: Mutex::new(None) });
    // Without a key it fails; what matters is which key it asks for before it does.
    let failed = read(file, &keys).err();
    let asked = keys.asked.lock().unwrap_or_else(PoisonError::into_inner).take();
    asked.map(Some).ok_or_else(|| {
        let reason = failed.map(|error| error.to_string()).unwrap_or_default();
        Error::new(Kind::Difference, format!("it does not tell its key: {reason}"))
    })
}

/// The error of files that are encrypted with another key than the plan has.
pub fn wrong_key(asked: &str, key: Option<&EncryptKey>) -> Error {
    let own = match key {
        Some(key) => format!("encrypt_key of [archive] has the id {}", key.id_text()),
        None => "[archive] has no encrypt_key".to_owned(),
    };
    let message = format!("the archive is encrypted with the key of id {asked}, and {own}");
    Error::new(Kind::Config, message).with_hint(
        "put the key of that id into the file that encrypt_key names, then run the same command again",
    )
}

fn read(
    file: Bytes,
    keys: &Arc<Keys>,
) -> std::result::Result<(RecordBatch, Option<Digest>), Failure> {
    let mut options = ArrowReaderOptions::new();
    if file.ends_with(ENCRYPTED) {
        let retriever: Arc<dyn KeyRetriever> = Arc::<Keys>::clone(keys);
        let decryption = FileDecryptionProperties::with_key_retriever(retriever).build()?;
        options = options.with_file_decryption_properties(decryption);
    }
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?;
    let metadata = builder.metadata().file_metadata();
    let count = u64::try_from(metadata.num_rows())?;
    let digest = digest_of(metadata.key_value_metadata(), count);
    let schema: SchemaRef = Arc::new(without_labels(builder.schema()));
    let reader = builder.with_batch_size(BLOCK_ROWS_MAX).build()?;
    let batches = reader.collect::<std::result::Result<Vec<_>, ArrowError>>()?;
    let rows = concat_batches(&schema, &batches)?;
    Ok((retyped(&rows, &CARRIED, &INTERVAL)?, digest))
}

/// Parquet has one place for what a file and what a schema says.
fn without_labels(schema: &Schema) -> Schema {
    let mut metadata = schema.metadata().clone();
    metadata.retain(|name, _| !name.starts_with(OWN));
    Schema::new_with_metadata(schema.fields().clone(), metadata)
}

fn digest_of(told: Option<&Vec<KeyValue>>, rows: u64) -> Option<Digest> {
    let text = |name: &str| told?.iter().find(|pair| pair.key == name)?.value.as_deref();
    let is_comparable = text(DIGEST_VERSION_OF) == Some(&DIGEST_VERSION.to_string());
    Digest::from_hex(text(DIGEST)?, rows).filter(|_| is_comparable)
}

/// The one key there is, and the id of the one that was asked for.
struct Keys {
    key: Option<EncryptKey>,
    asked: Mutex<Option<String>>,
}

impl KeyRetriever for Keys {
    fn retrieve_key(&self, key_metadata: &[u8]) -> std::result::Result<Vec<u8>, ParquetError> {
        let id = String::from_utf8_lossy(key_metadata).into_owned();
        let found = self.key.as_ref().filter(|key| key.id_text() == id);
        let key = found.map(|key| key.bytes().to_vec());
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        key.ok_or_else(|| ParquetError::General("the key of this file is not at hand".to_owned()))
    }
}

/// Gives columns of one type, at any depth, another one of the same bytes.
fn retyped(
    rows: &RecordBatch,
    from: &DataType,
    to: &DataType,
) -> std::result::Result<RecordBatch, ArrowError> {
    let schema = rows.schema();
    let fields: Vec<FieldRef> =
        schema.fields().iter().map(|field| field_with(field, from, to)).collect();
    if fields.iter().zip(schema.fields()).all(|(new, old)| new == old) {
        return Ok(rows.clone());
    }
    let columns = rows
        .columns()
        .iter()
        .zip(&fields)
        .map(|(column, field)| Ok(make_array(data_with(column.to_data(), field.data_type())?)))
        .collect::<std::result::Result<Vec<_>, ArrowError>>()?;
    let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
    RecordBatch::try_new(Arc::new(schema), columns)
}

fn field_with(field: &FieldRef, from: &DataType, to: &DataType) -> FieldRef {
    let found = type_with(field.data_type(), from, to);
    if found == *field.data_type() {
        return Arc::clone(field);
    }
    Arc::new(Field::clone(field).with_data_type(found))
}

fn type_with(found: &DataType, from: &DataType, to: &DataType) -> DataType {
    match found {
        found if found == from => to.clone(),
        DataType::List(item) => DataType::List(field_with(item, from, to)),
        DataType::Struct(members) => {
            DataType::Struct(members.iter().map(|member| field_with(member, from, to)).collect())
        }
        other => other.clone(),
    }
}

fn data_with(data: ArrayData, to: &DataType) -> std::result::Result<ArrayData, ArrowError> {
    let types: Vec<&DataType> = match to {
        DataType::List(item) => vec![item.data_type()],
        DataType::Struct(members) => members.iter().map(|member| member.data_type()).collect(),
        _ => Vec::new(),
    };
    let children = data.child_data().iter().cloned().zip(types);
    let children = children
        .map(|(child, to)| data_with(child, to))
        .collect::<std::result::Result<Vec<_>, ArrowError>>()?;
    data.into_builder().data_type(to.clone()).child_data(children).align_buffers(true).build()
}

#[cfg(test)]
#[path = "parquet_file/tests.rs"]
mod tests;
