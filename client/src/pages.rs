//! Lists that the server gives page by page.

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::Method;
use serde::de::DeserializeOwned;

use crate::endpoint::Endpoint;
use crate::failure::Failure;

/// Largest answer that is read: the server's largest page of history, base64 and all.
pub(crate) const MAX_PAGE_BYTES: usize = 64 << 20;

/// One page: its items, and where the next one begins.
pub(crate) trait Page: DeserializeOwned {
    type Item;
    fn parts(self) -> (Vec<Self::Item>, Option<String>);
}

impl Endpoint {
    /// Asks for a path and reads JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, Failure> {
        let request = self.request(Method::GET, target).body(Bytes::new());
        let request = request.map_err(|error| Failure::Arguments(error.to_string()))?;
        let answer = self.ask(request, MAX_PAGE_BYTES).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| self.foreign(format!("its answer is not as known ({error})")))
    }

    /// Hands over all items of a list, as pages come.
    pub(crate) async fn each<P: Page>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        mut take: impl FnMut(P::Item) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut cursor: Option<String> = None;
        loop {
            let mut query = Serializer::new(String::new());
            query.extend_pairs(parameters);
            if let Some(cursor) = &cursor {
                query.append_pair("cursor", cursor);
            }
            let (items, next) = self.get::<P>(&with_query(path, &query.finish())).await?.parts();
            items.into_iter().try_for_each(&mut take)?;
            match next {
                // A server that says the same again would never end.
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                _ => return Ok(()),
            }
        }
    }
}

pub(crate) fn with_query(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}
