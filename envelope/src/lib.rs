//! Messages as JSON: payload classification, the JSON envelope, exact text
