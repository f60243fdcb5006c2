//! Messages of the contract, and what the map knows them as.

use bytes::Bytes;
use prost::Message as _;
use sovereign_bus::Key;
use sovereign_model::geo::TileCoord;
use sovereign_model::{CameraPose, Digest, Intrinsics, Relief, Timestamp};
use sovereign_proto::convert::{self, FieldError, converted};
use sovereign_proto::geo::v1::TrackingState;
use sovereign_proto::slam::v1::{Keyframe, PoseSource};
use sovereign_proto::tile::v1 as wire;
use sovereign_service::chain;

use crate::arrival::{Arrival, Sighting};
use crate::domain::layer::Layer;
use crate::error::{Error, Refusal};
use crate::metrics::{PaintStats, percentile};
use crate::picture::Format;
use crate::store::LayerSummary;

pub(crate) use sovereign_proto::slam::v1::Keyframe as Verdict;
pub(crate) use sovereign_proto::tile::v1::TileChange as Change;

/// A verdict as it comes. No verdict is given on a frame whose id is no digest, or whose sensor is not the
/// key that it came under.
pub(crate) fn arrival_from_keyframe(
    keyframe: &Keyframe,
    key: Option<&Key>,
) -> Result<Arrival, FieldError> {
    if Digest::from_hex(&keyframe.frame_id).is_err() {
        return Err(FieldError::new("frame_id", "must be 64 hex digits"));
    }
    if key.is_none_or(|key| key.as_str() != keyframe.sensor_id) {
        return Err(FieldError::new(
            "sensor_id",
            "is not the key of the subject",
        ));
    }
    Ok(Arrival {
        frame_id: keyframe.frame_id.clone(),
        sensor_id: keyframe.sensor_id.clone(),
        revision: keyframe.revision,
        received: Timestamp::from_unix_nanos(keyframe.received_unix_nanos),
        simulated: keyframe.simulated,
        digest: convert::digest("image_digest", &keyframe.image_digest)?,
        keyframe: keyframe.encode_to_vec(),
    })
}

pub(crate) fn digest_from_keyframe(keyframe: &Keyframe) -> Option<Digest> {
    Digest::from_slice(&keyframe.image_digest).ok()
}

pub(crate) fn sighting_from_keyframe(keyframe: &Keyframe) -> Result<Sighting, Refusal> {
    if keyframe.source() == PoseSource::PositionOnly {
        return Err(Refusal::PositionOnly);
    }
    if keyframe.state() != TrackingState::Tracking {
        return Err(Refusal::NoPose);
    }
    let pose: CameraPose = converted("pose", keyframe.pose.as_ref()).map_err(Refusal::Malformed)?;
    let camera: Intrinsics =
        converted("intrinsics", keyframe.intrinsics.as_ref()).map_err(Refusal::Malformed)?;
    let relief = keyframe.relief.as_ref().map(Relief::try_from).transpose();
    let relief = relief.map_err(|error| Refusal::Malformed(error.within("relief")))?;
    Ok(Sighting {
        pose,
        camera,
        relief,
    })
}

pub(crate) fn kept_from_bytes(keyframe: &[u8]) -> Result<(Arrival, Sighting), Refusal> {
    let keyframe = Keyframe::decode(keyframe)
        .map_err(|error| FieldError::new("keyframe", error.to_string()))
        .map_err(Refusal::Malformed)?;
    let key = Key::parse(&keyframe.sensor_id).ok();
    let arrival = arrival_from_keyframe(&keyframe, key.as_ref()).map_err(Refusal::Malformed)?;
    Ok((arrival, sighting_from_keyframe(&keyframe)?))
}

/// The frame of a verdict that the store kept, whether it is on the map or not.
pub(crate) fn named_from_bytes(keyframe: &[u8]) -> Option<Arrival> {
    let keyframe = Keyframe::decode(keyframe).ok()?;
    let key = Key::parse(&keyframe.sensor_id).ok();
    arrival_from_keyframe(&keyframe, key.as_ref()).ok()
}

/// What is told of a frame that was refused, and the id of the message.
pub(crate) fn refused_from(arrival: &Arrival, refusal: &Refusal) -> (String, wire::FrameRefused) {
    let message = wire::FrameRefused {
        frame_id: arrival.frame_id.clone(),
        sensor_id: arrival.sensor_id.clone(),
        revision: arrival.revision,
        reason: chain(refusal).to_string(),
    };
    let id = format!("{}.{}.refused", arrival.frame_id, arrival.revision);
    (id, message)
}

pub(crate) fn change_from_parts(
    sequence: u64,
    layer: Layer,
    tiles: &[(TileCoord, Option<Digest>)],
    frames: &[Arrival],
    committed: Timestamp,
) -> (wire::TileChange, Vec<u8>) {
    let changed = tiles.iter().map(|(coord, digest)| wire::ChangedTile {
        coord: Some((*coord).into()),
        digest: digest.map_or_else(Bytes::new, |d| Bytes::copy_from_slice(d.as_bytes())),
    });
    let change = wire::TileChange {
        sequence,
        layer: layer.name().to_owned(),
        tiles: changed.collect(),
        committed_unix_nanos: committed.as_unix_nanos(),
        simulated: frames.iter().any(|frame| frame.simulated),
        frames: frames
            .iter()
            .map(|frame| wire::PaintedFrame {
                frame_id: frame.frame_id.clone(),
                sensor_id: frame.sensor_id.clone(),
                revision: frame.revision,
            })
            .collect(),
    };
    let bytes = change.encode_to_vec();
    (change, bytes)
}

/// The hint at a change. `limit` is what the bus takes, bytes: a larger change is named alone.
pub(crate) fn hint_from_change(
    change: wire::TileChange,
    latency_nanos: i64,
    limit: usize,
) -> wire::TileChanged {
    let hint = wire::TileChanged {
        change: Some(change),
        latency_nanos,
    };
    if hint.encoded_len() <= limit {
        return hint;
    }
    let change = hint.change.map(|change| wire::TileChange {
        tiles: Vec::new(),
        frames: Vec::new(),
        ..change
    });
    wire::TileChanged {
        change,
        latency_nanos,
    }
}

pub(crate) enum Wanted {
    At(Layer, TileCoord),
    Showing(Digest),
}

pub(crate) fn wanted_from_request(request: &wire::GetTileRequest) -> Result<Wanted, Error> {
    if !request.digest.is_empty() {
        let digest = convert::digest("digest", &request.digest).map_err(Error::Request)?;
        return Ok(Wanted::Showing(digest));
    }
    let layer = layer_from_name(&request.layer)?;
    let coord = converted("coord", request.coord.as_ref()).map_err(Error::Request)?;
    Ok(Wanted::At(layer, coord))
}

pub(crate) fn layer_from_name(name: &str) -> Result<Layer, Error> {
    Layer::parse(name).ok_or_else(|| Error::UnknownLayer(name.to_owned()))
}

pub(crate) fn format_from_number(format: i32) -> Result<Format, Error> {
    match wire::TileFormat::try_from(format) {
        Ok(wire::TileFormat::Unspecified | wire::TileFormat::Png) => Ok(Format::Png),
        Ok(wire::TileFormat::Jpeg) => Ok(Format::Jpeg),
        Ok(wire::TileFormat::Webp) => Ok(Format::Webp),
        Ok(wire::TileFormat::WebpLossy) => Ok(Format::WebpLossy),
        Err(_) => Err(Error::UnknownFormat(format)),
    }
}

pub(crate) fn coord_after(
    after: Option<&sovereign_proto::geo::v1::TileCoord>,
) -> Result<Option<TileCoord>, Error> {
    let coord = after.map(TileCoord::try_from).transpose();
    coord.map_err(|error| Error::Request(error.within("after")))
}

pub(crate) fn tiles_from_list(tiles: Vec<(TileCoord, Digest)>) -> wire::ListTilesResponse {
    let tiles = tiles.into_iter().map(|(coord, digest)| wire::ChangedTile {
        coord: Some(coord.into()),
        digest: Bytes::copy_from_slice(digest.as_bytes()),
    });
    wire::ListTilesResponse {
        tiles: tiles.collect(),
    }
}

pub(crate) fn changes_from_messages(
    messages: &[Vec<u8>],
    oldest_kept: u64,
) -> Result<wire::ListChangesResponse, prost::DecodeError> {
    let changes = messages
        .iter()
        .map(|message| wire::TileChange::decode(message.as_slice()));
    Ok(wire::ListChangesResponse {
        changes: changes.collect::<Result<_, _>>()?,
        oldest_kept,
    })
}

pub(crate) fn layer_from_summary(
    layer: Layer,
    summary: LayerSummary,
    centre: Option<TileCoord>,
) -> wire::Layer {
    let is_empty = summary.tiles == 0;
    wire::Layer {
        name: layer.name().to_owned(),
        min_zoom: if is_empty { 0 } else { summary.min_zoom.into() },
        max_zoom: summary.max_zoom.into(),
        bounds: summary.bounds.map(Into::into),
        tiles: summary.tiles,
        last_change: summary.last_change,
        simulated: summary.simulated,
        centre: centre.map(Into::into),
    }
}

pub(crate) fn stats_from_figures(stats: PaintStats) -> wire::GetPaintStatsResponse {
    let of = |percent| percentile(&stats.latencies_nanos, percent);
    let latency = of(50).zip(of(99));
    wire::GetPaintStatsResponse {
        frames_painted: stats.frames_painted,
        latency: latency.map(|(p50_nanos, p99_nanos)| wire::LatencySummary {
            count: stats.latencies_nanos.len() as u64,
            p50_nanos,
            p99_nanos,
        }),
        frames_refused: stats
            .frames_refused
            .into_iter()
            .map(|(reason, count)| (reason.to_owned(), count))
            .collect(),
        tiles_written: stats.tiles_written,
        since_unix_nanos: stats.since.as_unix_nanos(),
    }
}
