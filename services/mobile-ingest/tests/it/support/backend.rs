//! The services behind the edge, as small as they can be.

use std::sync::{Arc, Mutex};

use mobile_ingest::Calls;
use sovereign_objects::memory::MemoryStore;
use sovereign_proto::drone::v1 as drone;
use sovereign_proto::drone::v1::drones_server::{Drones, DronesServer};
use sovereign_proto::drone::v1::submit_capture_request::Part;
use sovereign_proto::geo::v1 as geo;
use sovereign_proto::mesh::v1 as mesh;
use sovereign_proto::mesh::v1::mesh_server::{Mesh, MeshServer};
use sovereign_proto::slam::v1 as slam;
use sovereign_proto::slam::v1::slam_server::{Slam, SlamServer};
use sovereign_proto::tile::v1 as tile;
use sovereign_proto::tile::v1::tiles_server::{Tiles, TilesServer};
use sovereign_service::Channel;
use tonic::service::Routes;
use tonic::{Request, Status, Streaming};

/// What the services behind the edge were asked.
#[derive(Default)]
pub(crate) struct Backend {
    /// Pictures that reached the drone door.
    pub(crate) captures: Mutex<Vec<(drone::CaptureHeader, Vec<u8>)>>,
    /// The sensor of each verdict; they are numbered from 1.
    pub(crate) verdicts: Mutex<Vec<String>>,
    /// The content store.
    pub(crate) store: MemoryStore,
}

/// Channels to small services that answer what the tests expect.
pub(super) fn calls(backend: &Arc<Backend>) -> Calls {
    Calls {
        checkpoint: backend.store.channel(),
        drones: Channel::local(Routes::new(DronesServer::new(Doors(backend.clone())))),
        tiles: Channel::local(Routes::new(TilesServer::new(Map))),
        slam: Channel::local(Routes::new(SlamServer::new(Poses(backend.clone())))),
        mesh: Some(Channel::local(Routes::new(MeshServer::new(Peers)))),
    }
}

type Answer<T> = Result<tonic::Response<T>, Status>;

struct Doors(Arc<Backend>);

#[tonic::async_trait]
impl Drones for Doors {
    async fn list_vehicles(
        &self,
        _: Request<drone::ListVehiclesRequest>,
    ) -> Answer<drone::ListVehiclesResponse> {
        let vehicle = drone::VehicleState {
            vehicle_id: "sys-1".to_owned(),
            observed_unix_nanos: 1_500_000_000,
            position: Some(geo::GeoPoint {
                latitude_deg: 51.5,
                longitude_deg: -0.25,
                altitude_m: None,
            }),
            ..Default::default()
        };
        Ok(tonic::Response::new(drone::ListVehiclesResponse {
            vehicles: vec![vehicle],
        }))
    }

    async fn submit_capture(
        &self,
        request: Request<Streaming<drone::SubmitCaptureRequest>>,
    ) -> Answer<drone::SubmitCaptureResponse> {
        let mut parts = request.into_inner();
        let Some(Part::Header(header)) = parts.message().await?.and_then(|first| first.part) else {
            return Err(Status::invalid_argument("header is missing"));
        };
        let mut image = Vec::new();
        while let Some(message) = parts.message().await? {
            let Some(Part::Chunk(chunk)) = message.part else {
                return Err(Status::invalid_argument("chunk is missing"));
            };
            assert!(chunk.len() <= 1 << 20);
            image.extend_from_slice(&chunk);
        }
        if !image.starts_with(&[0xFF, 0xD8]) {
            return Err(Status::invalid_argument("the picture is no picture"));
        }
        match header.vehicle_id.as_str() {
            "refused" => return Err(Status::invalid_argument("vehicle_id is refused")),
            "full" => return Err(Status::resource_exhausted("the content store has no room")),
            "down" => return Err(Status::unavailable("the journal is full")),
            _ => {}
        }
        let frame_id = format!("frame-of-{}", header.vehicle_id);
        self.0.captures.lock().unwrap().push((header, image));
        Ok(tonic::Response::new(drone::SubmitCaptureResponse {
            frame_id,
            duplicate: false,
        }))
    }

    async fn get_ingest_stats(
        &self,
        _: Request<drone::GetIngestStatsRequest>,
    ) -> Answer<drone::GetIngestStatsResponse> {
        Ok(tonic::Response::new(drone::GetIngestStatsResponse {
            datagrams: 9,
            ..Default::default()
        }))
    }
}

struct Map;

#[tonic::async_trait]
impl Tiles for Map {
    async fn list_layers(
        &self,
        _: Request<tile::ListLayersRequest>,
    ) -> Answer<tile::ListLayersResponse> {
        let layer = tile::Layer {
            name: "imagery".to_owned(),
            min_zoom: 10,
            max_zoom: 20,
            bounds: Some(geo::Bounds {
                west_deg: 1.0,
                south_deg: 2.0,
                east_deg: 3.0,
                north_deg: 4.0,
            }),
            tiles: 5,
            last_change: 6,
            centre: Some(geo::TileCoord {
                z: 20,
                x: 530_113,
                y: 515_548,
            }),
            simulated: true,
        };
        Ok(tonic::Response::new(tile::ListLayersResponse {
            layers: vec![layer],
        }))
    }

    async fn get_tile(
        &self,
        request: Request<tile::GetTileRequest>,
    ) -> Answer<tile::GetTileResponse> {
        let request = request.into_inner();
        let media_type = match request.format() {
            tile::TileFormat::Unspecified => return Err(Status::invalid_argument("format")),
            tile::TileFormat::Png => "image/png",
            tile::TileFormat::Jpeg => "image/jpeg",
            tile::TileFormat::Webp | tile::TileFormat::WebpLossy => "image/webp",
        };
        let coord = request.coord.unwrap();
        if request.layer != "imagery" || coord.x == 0 {
            return Err(Status::not_found("nothing there"));
        }
        Ok(tonic::Response::new(tile::GetTileResponse {
            data: format!(
                "{media_type} {}/{}/{}{}",
                coord.z,
                coord.x,
                coord.y,
                if request.double { " twice" } else { "" }
            )
            .into(),
            media_type: media_type.to_owned(),
            digest: "digest".to_owned(),
        }))
    }

    async fn list_tiles(
        &self,
        _: Request<tile::ListTilesRequest>,
    ) -> Answer<tile::ListTilesResponse> {
        Err(Status::unimplemented("the edge does not ask for lists"))
    }

    async fn list_changes(
        &self,
        _: Request<tile::ListChangesRequest>,
    ) -> Answer<tile::ListChangesResponse> {
        Err(Status::unimplemented("the edge does not ask for changes"))
    }

    async fn get_paint_stats(
        &self,
        _: Request<tile::GetPaintStatsRequest>,
    ) -> Answer<tile::GetPaintStatsResponse> {
        Ok(tonic::Response::new(tile::GetPaintStatsResponse {
            frames_painted: 3,
            tiles_written: 30,
            latency: Some(tile::LatencySummary {
                count: 3,
                p50_nanos: 38_500_000,
                p99_nanos: 90_000_000,
            }),
            ..Default::default()
        }))
    }
}

struct Poses(Arc<Backend>);

#[tonic::async_trait]
impl Slam for Poses {
    async fn get_keyframe(
        &self,
        _: Request<slam::GetKeyframeRequest>,
    ) -> Answer<slam::GetKeyframeResponse> {
        Err(Status::unimplemented("the edge does not ask for one"))
    }

    async fn set_calibration(
        &self,
        _: Request<slam::SetCalibrationRequest>,
    ) -> Answer<slam::SetCalibrationResponse> {
        Err(Status::unimplemented("the edge calibrates nothing"))
    }

    async fn remove_calibration(
        &self,
        _: Request<slam::RemoveCalibrationRequest>,
    ) -> Answer<slam::RemoveCalibrationResponse> {
        Err(Status::unimplemented("the edge calibrates nothing"))
    }

    async fn list_calibrations(
        &self,
        _: Request<slam::ListCalibrationsRequest>,
    ) -> Answer<slam::ListCalibrationsResponse> {
        Err(Status::unimplemented("the edge calibrates nothing"))
    }

    async fn list_keyframes(
        &self,
        request: Request<slam::ListKeyframesRequest>,
    ) -> Answer<slam::ListKeyframesResponse> {
        let request = request.into_inner();
        let verdicts = self.0.verdicts.lock().unwrap().clone();
        let position = verdicts.len() as u64;
        let keyframe = |sensor_id: String, number: u64| slam::Keyframe {
            frame_id: format!("{sensor_id} {number}"),
            sensor_id,
            state: geo::TrackingState::Tracking.into(),
            ..Default::default()
        };
        let keyframes = match request.after {
            None => vec![keyframe(request.sensor_id, request.limit.into())],
            Some(after) if after > position => {
                return Err(Status::failed_precondition("`after` is ahead"));
            }
            Some(after) => {
                let numbered = (1..).zip(verdicts);
                let new = numbered.filter(|(number, _)| *number > after);
                new.map(|(number, sensor)| keyframe(sensor, number))
                    .collect()
            }
        };
        Ok(tonic::Response::new(slam::ListKeyframesResponse {
            keyframes,
            position,
        }))
    }
}

struct Peers;

#[tonic::async_trait]
impl Mesh for Peers {
    type SubscribeStream = futures::stream::Empty<Result<mesh::MeshMessage, Status>>;

    async fn get_node(&self, _: Request<mesh::GetNodeRequest>) -> Answer<mesh::GetNodeResponse> {
        Ok(tonic::Response::new(mesh::GetNodeResponse {
            peer_id: "peer-a".to_owned(),
            ..Default::default()
        }))
    }

    async fn list_peers(
        &self,
        _: Request<mesh::ListPeersRequest>,
    ) -> Answer<mesh::ListPeersResponse> {
        Ok(tonic::Response::new(mesh::ListPeersResponse {
            peers: vec![mesh::Peer {
                peer_id: "peer-b".to_owned(),
                ..Default::default()
            }],
        }))
    }

    async fn publish(&self, _: Request<mesh::PublishRequest>) -> Answer<mesh::PublishResponse> {
        Err(Status::unimplemented("the edge does not publish"))
    }

    async fn subscribe(&self, _: Request<mesh::SubscribeRequest>) -> Answer<Self::SubscribeStream> {
        Err(Status::unimplemented("the edge does not subscribe"))
    }
}
