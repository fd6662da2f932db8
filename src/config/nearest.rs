//! What was probably meant by a name that is not known.

/// The name most like `wanted`, unless none is like it at all. Names come with what is told of them: what all have in
/// front makes none more like another.
pub(super) fn nearest(wanted: &str, names: impl Iterator<Item = (String, String)>) -> Option<String> {
    const MIN_LIKENESS: f64 = 0.6;
    names
        .map(|(name, told)| (strsim::normalized_damerau_levenshtein(wanted, &name), told))
        .filter(|(likeness, _)| *likeness >= MIN_LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, told)| told)
}
