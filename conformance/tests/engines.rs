//! The suite over the engines that are here.

mod paced {
    conformance::suite!(conformance::PacedGround::default);
}

mod chaos {
    conformance::suite!(|| conformance::Chaos::new(1));
}

mod another_chaos {
    conformance::suite!(|| conformance::Chaos::new(0xFA17));
}
