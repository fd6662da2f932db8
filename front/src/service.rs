//! Fronts in `tower` stacks.

/// Makes a front a [`tower_service::Service`](https://docs.rs/tower-service) of requests with any body, so that it goes
/// into axum's routers and `tower`'s stacks as it is. It is always ready, never fails, and calls the type's own
/// `handle(&self, http::Request<B>)`, in a future that is boxed. The type is `Clone`: a handle.
///
/// ```
/// use front::exported::{BoxError, Request, Response};
///
/// #[derive(Clone)]
/// struct Greeter;
///
/// impl Greeter {
///     async fn handle<B>(&self, _: Request<B>) -> Response {
///         Response::new(http_edge::Body::full("hello"))
///     }
/// }
///
/// front::service!(Greeter);
/// ```
///
/// # Paths
/// One rule for all fronts: a front answers at the path of its configuration and below, in paths as it is given them,
/// and nothing else. A router that takes a prefix off gives it what is behind, and is given the front's `nested()`, which
/// is at `/`:
///
/// | axum | at `/live/chat/room1` the front sees | give it |
/// | --- | --- | --- |
/// | `nest_service("/live", …)` | `/chat/room1` | `front.nested()` |
/// | `route_service("/live/{*rest}", …)` | `/live/chat/room1` | a front whose `Config::path` is `/live` |
/// | `fallback_service(…)` | `/live/chat/room1` | the same, or all `Fronts` |
#[macro_export]
macro_rules! service {
    ($front:ty) => {
        impl<B> $crate::exported::Service<$crate::exported::Request<B>> for $front
        where
            B: $crate::exported::HttpBody<Data = $crate::exported::Bytes> + Send + 'static,
            B::Error: Into<$crate::exported::BoxError>,
        {
            type Response = $crate::exported::Response;
            type Error = ::std::convert::Infallible;
            type Future = $crate::Task<Result<Self::Response, Self::Error>>;

            fn poll_ready(
                &mut self,
                _: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<Result<(), Self::Error>> {
                ::std::task::Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: $crate::exported::Request<B>) -> Self::Future {
                let front = ::std::clone::Clone::clone(self);
                ::std::boxed::Box::pin(async move { Ok(front.handle(request).await) })
            }
        }
    };
}

/// What [`service!`](crate::service) names.
#[doc(hidden)]
pub mod exported {
    pub use bytes::Bytes;
    pub use http::Request;
    pub use http_body::Body as HttpBody;
    pub use http_edge::{BoxError, Response};
    pub use tower_service::Service;
}
