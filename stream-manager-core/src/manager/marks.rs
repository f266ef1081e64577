//! What is marked in recordings, by the manager: added by whoever asks, looked for, taken away.

use super::{ManagerError, StreamManager};
use crate::storage::index::{Mark, MarkFilter, MarkRow};

impl StreamManager {
    /// Marks something in a stream's recordings. It is on the disk when this returns.
    ///
    /// # Errors
    /// If there is no such stream, or it cannot be remembered.
    pub async fn add_mark(&self, id: &str, mark: Mark) -> Result<MarkRow, ManagerError> {
        let stream = self.recorded_id(id).await?;
        let index = self.need_index()?;
        let (name, written) = (stream.clone(), mark.clone());
        let id = index.write(move |catalog| catalog.add_mark(&name, &written)).await?;
        Ok(MarkRow { id, stream, mark })
    }

    /// Takes a mark of a stream away. False if there is none of this number.
    ///
    /// # Errors
    /// If there is no such stream, or the index cannot be written to.
    pub async fn remove_mark(&self, id: &str, number: u64) -> Result<bool, ManagerError> {
        let stream = self.recorded_id(id).await?;
        let index = self.need_index()?;
        Ok(index.write(move |catalog| catalog.remove_mark(&stream, number)).await?)
    }

    /// Looks for marks, over all streams or some.
    ///
    /// # Errors
    /// If one stream is asked for and there is none, or the index cannot be read.
    pub async fn find_marks(
        &self,
        mut filter: MarkFilter,
        limit: usize,
    ) -> Result<Vec<MarkRow>, ManagerError> {
        if let Some(id) = &filter.stream {
            filter.stream = Some(self.recorded_id(id).await?);
        }
        let index = self.need_index()?;
        Ok(index.read(move |catalog| catalog.find_marks(&filter, limit)).await?)
    }
}
