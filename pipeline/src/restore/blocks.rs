//! Blocks on their way from Redis to a lane: read ahead, checked, decoded and encoded for the stream.
//!
//! Invariant: a block reaches a stream only when it is the one that its manifest names, bit by bit.

use super::choose::Taken;
use super::duplicate::damaged;
use super::load::Lane;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use schemas::Digest;
use schemas::block;
use schemas::manifest::{BlockEntry, Version};
use stages::load::bigquery::REQUEST_BYTES_MAX;
use stages::transform::arrow_rows::{self, Message};
use stages::transform::form::{Expected, Form};
use stages::{Kind, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Blocks on their way from Redis to the lane.
const READAHEAD: usize = 2;

/// Returns the first block with rows beyond `acknowledged`, and the offset of its first row.
pub(super) fn whole_blocks(version: &Version, acknowledged: u64) -> (usize, u64) {
    let mut offset = 0;
    for (place, entry) in version.blocks.iter().enumerate() {
        let end = offset + u64::from(entry.rows());
        if end > acknowledged {
            return (place, offset);
        }
        offset = end;
    }
    (version.blocks.len(), offset)
}

/// A block on its way to the stream.
pub(super) struct Decoded {
    /// The requests it makes.
    pub(super) messages: Vec<Message>,
    /// Stored bytes.
    pub(super) bytes: u64,
    /// Digest of its rows as stored.
    pub(super) digest: Digest,
    /// Digest of its rows in the schema of the table.
    pub(super) fitted: Digest,
}

type Decoding = Pin<Box<dyn Future<Output = Result<Decoded>> + Send>>;

/// Reads blocks ahead and has them decoded; dropping it ends that.
pub(super) struct Reader {
    blocks: mpsc::Receiver<Result<Decoding>>,
    task: JoinHandle<()>,
}

impl Reader {
    pub(super) fn start(lane: &Lane, taken: &Taken, first: usize) -> Self {
        let (sender, blocks) = mpsc::channel(READAHEAD);
        let (lane, taken) = (lane.clone(), taken.clone());
        let task = tokio::spawn(async move {
            for (place, entry) in taken.version.blocks.iter().enumerate().skip(first) {
                let ordinal = u32::try_from(place).unwrap_or(u32::MAX);
                let block = Block::new(&lane, &taken, ordinal, entry);
                let read = match lane.values.get(&block.expected.key).await {
                    Ok(Some(value)) => {
                        let schema = Arc::clone(&lane.schema);
                        let work = lane.shared.cpu.submit(move || decode(&block, &value, &schema));
                        Ok(Box::pin(work) as Decoding)
                    }
                    Ok(None) => Err(damaged(format!("block {} is missing", block.expected.key))),
                    Err(error) => Err(error),
                };
                let is_last = read.is_err();
                if sender.send(read).await.is_err() || is_last {
                    return;
                }
            }
        });
        Self { blocks, task }
    }

    pub(super) async fn next(&mut self, lane: &Lane) -> Result<Option<Decoded>> {
        let started = Instant::now();
        let block = self.blocks.recv().await;
        lane.shared.counters.source_wait(lane.index, started.elapsed());
        match block {
            Some(decoding) => decoding?.await.map(Some),
            None => Ok(None),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a block must be.
struct Block {
    form: Form,
    expected: Expected,
}

impl Block {
    fn new(lane: &Lane, taken: &Taken, ordinal: u32, entry: &BlockEntry) -> Self {
        let (table_partition, generation) =
            (taken.table_partition.clone(), taken.version.generation);
        let expected = Expected {
            key: lane.keys.block(&table_partition, generation, ordinal),
            table_partition,
            generation,
            ordinal,
            key_id: taken.version.key_id.clone(),
            entry: entry.clone(),
        };
        Self { form: lane.values.form().clone(), expected }
    }
}

/// Checks a block against manifest and header, decodes it, and encodes it for the stream. Runs on rayon.
fn decode(block: &Block, value: &Bytes, schema: &SchemaRef) -> Result<Decoded> {
    let key = &block.expected.key;
    let altered = |reason: String| damaged(format!("block {key} is altered: {reason}"));
    let decoded = block.form.decode(value, &block.expected);
    let (rows, digest) = decoded.map_err(|error| match error.kind() {
        Kind::Difference => altered(error.to_string()),
        _ => error,
    })?;
    let same_fields = rows.schema_ref().fields() == schema.fields();
    let table_rows = arrow_rows::fit(&rows, schema)?;
    let fitted = if same_fields {
        digest
    } else {
        block::digest(&table_rows).map_err(|error| altered(error.to_string()))?
    };
    let messages = arrow_rows::cut(&table_rows, REQUEST_BYTES_MAX)?;
    Ok(Decoded { messages, bytes: value.len() as u64, digest, fitted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::record_batch::RecordBatch;
    use schemas::block::{Body, CODEC_ZSTD_ARROW, Header};
    use schemas::digest::DIGEST_VERSION;
    use schemas::{EncryptKey, Seals};

    const KEY: &str = "log:b:20261102:3:1";

    fn body(last: i64) -> (RecordBatch, Body) {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, last]));
        let rows = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let body = block::encode(std::slice::from_ref(&rows)).unwrap().remove(0);
        (rows, body)
    }

    /// The block that [`asked`] names, as it is stored.
    fn header(body: &Body) -> Header {
        Header {
            codec: CODEC_ZSTD_ARROW,
            is_last: false,
            rows: body.rows,
            ordinal: 1,
            generation: 3,
            snapshot_us: 0,
            last_modified_us: 0,
            expires_us: None,
            table_created_ms: 0,
            digest: body.digest,
            digest_version: DIGEST_VERSION,
            schema_hash: 0,
            raw_bytes: body.raw_bytes,
            body_bytes: body.bytes.len() as u64,
            body_xxh3: body.xxh3,
            key_id: None,
            table: "d.t".to_owned(),
            table_id: "p:d.t".to_owned(),
            table_partition: "20261102".to_owned(),
        }
    }

    fn asked(entry: BlockEntry) -> Block {
        asked_of(&Arc::default(), None, entry)
    }

    /// The same of a version that is sealed with a key, read with those of a plan.
    fn asked_of(seals: &Arc<Seals>, key_id: Option<String>, entry: BlockEntry) -> Block {
        let (key, table_partition) = (KEY.to_owned(), "20261102".to_owned());
        let expected = Expected { key, table_partition, generation: 3, ordinal: 1, key_id, entry };
        Block { form: Form::Block(Arc::clone(seals)), expected }
    }

    fn read(block: &Block, header: &Header, body: &Body) -> std::result::Result<u64, String> {
        let value = Bytes::from([header.to_bytes(), body.bytes.clone()].concat());
        let (rows, _) = self::body(3);
        let decoded = decode(block, &value, &rows.schema());
        decoded.map(|decoded| decoded.digest.count).map_err(|error| error.to_string())
    }

    #[test]
    fn a_block_is_refused_by_whatever_tells_that_it_is_another_one() {
        let (_, body) = body(3);
        let (right, entry) = (header(&body), BlockEntry::of(&body, 0));
        assert_eq!(read(&asked(entry.clone()), &right, &body), Ok(3));
        // Each of them is whole, has as many rows, and holds the very same ones.
        let others = [
            Header { table_partition: "20261103".to_owned(), ..right.clone() },
            Header { generation: 2, ..right.clone() },
            Header { ordinal: 0, ..right.clone() },
        ];
        for other in &others {
            let refused = read(&asked(entry.clone()), other, &body).unwrap_err();
            assert!(refused.contains("it is another block than its manifest says"), "{refused}");
        }
        // These have its place and hold other rows than the manifest says.
        let (_, other) = self::body(4);
        let refused = read(&asked(entry.clone()), &header(&other), &other).unwrap_err();
        assert!(refused.contains("another block"), "{refused}");
        let fewer = asked(BlockEntry(entry.0, 2, entry.2));
        let refused = read(&fewer, &right, &body).unwrap_err();
        assert!(refused.contains("another block"), "{refused}");
    }

    #[test]
    fn a_sealed_block_is_taken_for_a_sealed_version_only() {
        let key = EncryptKey::parse(&"1".repeat(64)).unwrap();
        let seals = Arc::new(Seals::new(Some(&key), &[]));
        let (rows, body) = body(3);
        let right = Header { key_id: seals.key_id(), ..header(&body) };
        let entry = BlockEntry::of(&body, 0);
        let sealed = block::stored(&seals, KEY, &right, &body.bytes).unwrap();
        let sealed = Bytes::from(sealed);
        let asked = |seals: &Arc<Seals>, is_sealed: bool| {
            asked_of(seals, is_sealed.then(|| key.id_text()), entry.clone())
        };
        let decoded = decode(&asked(&seals, true), &sealed, &rows.schema()).unwrap();
        assert_eq!(decoded.digest.count, 3);
        // Its version says otherwise; it is not sealed where it should be; its key is not there.
        let kind = |block: &Block, value: &Bytes| {
            decode(block, value, &rows.schema()).map(drop).unwrap_err().kind()
        };
        assert_eq!(kind(&asked(&seals, false), &sealed), Kind::Difference);
        let plain = Bytes::from([header(&body).to_bytes(), body.bytes.clone()].concat());
        assert_eq!(kind(&asked(&seals, true), &plain), Kind::Difference);
        assert_eq!(kind(&asked(&Arc::default(), true), &sealed), Kind::Config);
        // Another place in redis than its own is an alteration, and the place is named.
        let mut elsewhere = asked(&seals, true);
        elsewhere.expected.key = "log:b:20261102:3:2".to_owned();
        let told = decode(&elsewhere, &sealed, &rows.schema()).map(drop).unwrap_err();
        assert_eq!(told.kind(), Kind::Difference);
        assert!(told.to_string().contains("log:b:20261102:3:2 is altered"), "{told}");
    }
}
