//! The services that the edge calls.

sovereign_service::calls! {
    /// The services that the edge shows, and the one that keeps pictures.
    pub struct Calls {
        /// Keeps pictures of phones.
        checkpoint: required "checkpoint-svc",
        /// Vehicles, and pictures of drones.
        drones: required "drone-ingest",
        /// The map.
        tiles: required "tile-svc",
        /// Keyframes.
        slam: required "slam-svc",
        /// Peers.
        mesh: optional "mesh-gateway",
    }
}
