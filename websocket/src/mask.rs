/// Removes (or applies: it is its own inverse) a client's mask. `offset` is the position of
/// `data` in its frame's payload, so that a frame may be unmasked piece by piece (RFC 6455 §5.3).
pub(crate) fn unmask(data: &mut [u8], mask: [u8; 4], offset: u64) {
    let [a, b, c, d] = mask;
    let mask = match offset % 4 {
        0 => [a, b, c, d],
        1 => [b, c, d, a],
        2 => [c, d, a, b],
        _ => [d, a, b, c],
    };
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = data.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::unmask;

    #[test]
    fn every_split_unmasks_like_byte_by_byte() {
        let mask = [0x11, 0x22, 0x44, 0x88];
        let plain: Vec<u8> = (0..100).collect();
        let expected: Vec<u8> =
            plain.iter().zip(mask.into_iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        for split in 0..=plain.len() {
            let mut data = plain.clone();
            let (head, tail) = data.split_at_mut(split);
            unmask(head, mask, 0);
            unmask(tail, mask, split as u64);
            assert_eq!(data, expected, "split at {split}");
        }
    }
}
