//! `inet` and `cidr` values of the binary format as the text that PostgreSQL prints of them.
//!
//! Invariant: the text gives the value back. The binary form is that of `network_send`: family (2 for IPv4, 3
//! for IPv6), bits of the netmask, whether it is a `cidr`, length of the address, address. The text is that
//! of `network_out`, which writes the netmask of an `inet` only where it is not the whole address.

const MALFORMED: &str = "the network address is malformed";

/// Appends the text of a value.
pub(super) fn write_text(field: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let ([family, bits, is_cidr, length], address) =
        field.split_first_chunk::<4>().ok_or(MALFORMED)?;
    if usize::from(*length) != address.len() {
        return Err(MALFORMED);
    }
    let bits_max = match (family, address) {
        (2, [a, b, c, d]) => {
            write_dotted([*a, *b, *c, *d], out);
            32
        }
        (3, address) => {
            write_groups(address.try_into().map_err(|_| MALFORMED)?, out);
            128
        }
        _ => return Err(MALFORMED),
    };
    if *bits > bits_max {
        return Err(MALFORMED);
    }
    if *bits < bits_max || *is_cidr != 0 {
        out.extend_from_slice(format!("/{bits}").as_bytes());
    }
    Ok(())
}

fn write_dotted([a, b, c, d]: [u8; 4], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{a}.{b}.{c}.{d}").as_bytes());
}

/// Appends groups of lowercase hex, the first longest run of two or more zero groups as `::`, and the last 32 bits
/// dotted where what is before them marks an IPv4 address.
fn write_groups(address: [u8; 16], out: &mut Vec<u8>) {
    let mut groups = [0_u16; 8];
    for (group, bytes) in groups.iter_mut().zip(address.as_chunks::<2>().0) {
        *group = u16::from_be_bytes(*bytes);
    }
    let zeros = longest_zeros(&groups);
    let holds_ipv4 = match zeros {
        (0, 6) => true,
        (0, 5) => groups[5] == 0xffff,
        _ => false,
    };
    let written = if holds_ipv4 { 6 } else { 8 };
    let (start, length) = zeros;
    let end = start + length;
    for (index, group) in groups[..written].iter().enumerate() {
        if length > 0 && (start..end).contains(&index) {
            if index == start {
                out.push(b':');
            }
            continue;
        }
        if index > 0 {
            out.push(b':');
        }
        out.extend_from_slice(format!("{group:x}").as_bytes());
    }
    if holds_ipv4 {
        out.push(b':');
        let [.., a, b, c, d] = address;
        write_dotted([a, b, c, d], out);
    } else if length > 0 && end == 8 {
        out.push(b':');
    }
}

/// Start and length of the first longest run of zero groups; a run of one does not count.
fn longest_zeros(groups: &[u16; 8]) -> (usize, usize) {
    let mut best = (0, 0);
    let mut at = 0;
    while at < groups.len() {
        let length = groups[at..].iter().take_while(|group| **group == 0).count();
        if length >= 2 && length > best.1 {
            best = (at, length);
        }
        at += length.max(1);
    }
    best
}
