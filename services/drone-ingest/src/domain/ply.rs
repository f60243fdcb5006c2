//! LiDAR returns as a file that point cloud tools open: binary PLY (Turk, *The PLY Polygon File Format*,
//! 1994), one vertex a return.

/// `points` are x, y, z triples in metres, in the frame of their sender.
pub(crate) fn ply_from_points(points: &[f32]) -> Vec<u8> {
    let header = format!(
        "ply\nformat binary_little_endian 1.0\nelement vertex {}\n\
         property float x\nproperty float y\nproperty float z\nend_header\n",
        points.len() / 3
    );
    let returns = points.iter().flat_map(|metres| metres.to_le_bytes());
    header.into_bytes().into_iter().chain(returns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_how_many_returns_follow() {
        let file = ply_from_points(&[1.0, 2.0, 3.0, -1.0, -2.0, -3.5]);
        let end = file.len() - 24;
        let header = std::str::from_utf8(&file[..end]).unwrap();
        assert!(header.starts_with("ply\nformat binary_little_endian 1.0\n"));
        assert!(header.contains("element vertex 2\n") && header.ends_with("end_header\n"));
        assert_eq!(file[file.len() - 4..], (-3.5_f32).to_le_bytes());
    }
}
